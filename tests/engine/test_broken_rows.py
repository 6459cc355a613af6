"""Rows that hold NaN or infinity: an error where one can be raised, no token elsewhere, and nobody else's loss."""

from __future__ import annotations

import math

import pytest
import torch

from steerlens.engine.broken_rows import NO_TOKEN
from steerlens.engine.sampler import likely_tokens, next_tokens, sampling_log_probs
from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.token_counts import TokenCounts
from steerlens.errors import SteerlensError
from tests.pretend_device import pretending
from tests.random_rows import gaussian, stream

PLAIN = Sampling(top_p=1.0, frequency_penalty=0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, "all -inf"])
@pytest.mark.parametrize("sampling", [Sampling(), PLAIN, Sampling(temperature=0), Sampling(top_k=3)], ids=str)
def test_rows_without_a_distribution_are_an_error(value: float | str, sampling: Sampling) -> None:
    logits = gaussian(4, 300)
    if isinstance(value, str):
        logits[2] = -math.inf
    else:
        logits[2, 17] = value
    counts = TokenCounts.of_prompts(torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(SteerlensError, match=r"^row 2: the largest logit"):
        next_tokens(logits, sampling, stream(4), counts)
    with pytest.raises(SteerlensError, match=r"^row 2: the largest logit"):
        sampling_log_probs(logits, sampling, counts)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_where_nothing_may_wait_a_lost_row_gets_no_token_and_the_others_theirs(value: float) -> None:
    logits, u = gaussian(4, 300), stream(4)
    counts = TokenCounts.of_prompts(torch.zeros(4, 1, dtype=torch.int64))
    expected = {s: next_tokens(logits, s, u, counts) for s in (Sampling(), PLAIN, Sampling(temperature=0))}
    logits[1] = value
    with pretending():
        given = logits.to("pretend"), u.to("pretend"), counts.to("pretend")
        for sampling, right in expected.items():
            drawn = next_tokens(given[0], sampling, *given[1:])
            guessed, certain = likely_tokens(given[0], sampling, *given[1:])
            assert certain.cpu().all()  # there is no better answer for the lost row
            for tokens in (drawn, guessed):
                assert tokens.cpu()[[0, 2, 3]].equal(right[[0, 2, 3]])
                assert tokens.cpu()[1] == NO_TOKEN
        assert given[2].add(drawn).dense(300).cpu()[1, 0] == 2


def test_minus_infinity_means_never() -> None:
    logits = torch.full((200, 50), -math.inf)
    logits[:, [3, 30]] = 0.0
    for sampling in (
        PLAIN,
        Sampling(top_p=0.9, frequency_penalty=0),
        Sampling(top_k=40, top_p=1.0, frequency_penalty=0),
    ):
        assert set(next_tokens(logits, sampling, stream(200)).tolist()) == {3, 30}
