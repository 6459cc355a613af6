"""The searches for the nucleus: one answer, whichever is used, and the quick one where it is quick."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from steerlens.engine import nucleus, whole_weights
from steerlens.engine.sampler import likely_tokens, next_tokens, sampling_log_probs
from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.token_counts import TokenCounts
from tests.pretend_device import pretending, waits
from tests.random_rows import gaussian, stream

PLAIN = Sampling(top_p=1.0, frequency_penalty=0.0)

KINDS = {
    "peaked": lambda b, v: gaussian(b, v, scale=4.0),
    "flat": lambda b, v: gaussian(b, v, scale=0.3),  # the nucleus is far wider than any slice
    "uniform": lambda b, v: torch.zeros(b, v),
    "ties": lambda b, v: gaussian(b, v).round(),
    "bfloat16": lambda b, v: gaussian(b, v).bfloat16(),
    "shifted": lambda b, v: gaussian(b, v) - 110.0,
    "sparse": lambda b, v: (
        gaussian(b, v).masked_fill(gaussian(b, v, seed=5) < 3.0, -math.inf).index_fill(1, torch.tensor([0]), 0.5)
    ),
    "steep": lambda b, v: -torch.arange(v).expand(b, v) * 7.0,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d_vocab", [1, 2, 65, 300, 5000])
@pytest.mark.parametrize("top_p", [1e-4, 0.3, 1 - 2.0**-53])
def test_all_searches_draw_the_same(kind: str, d_vocab: int, top_p: float) -> None:
    batch = 24
    logits = KINDS[kind](batch, d_vocab)
    tokens = torch.randint(0, d_vocab, (batch, 9), generator=torch.Generator().manual_seed(2))
    counts, u = TokenCounts.of_prompts(tokens), stream(batch)
    for sampling in (Sampling(top_p=top_p), Sampling(top_p=top_p, top_k=100, frequency_penalty=0.0)):
        expected = nucleus.drawn_by_sorting(logits, sampling, u, counts)
        assert next_tokens(logits, sampling, u, counts).equal(expected)
        assert nucleus.drawn_by_bins(logits, sampling, u, counts).equal(expected)
        drawn, found = nucleus.drawn_by_slice(logits, sampling, u, counts)
        assert drawn[found].equal(expected[found])
        allowed = sampling_log_probs(logits, sampling, counts).gather(1, expected[:, None])
        assert (allowed > -math.inf).all()
        if d_vocab <= 256:
            assert found.all()
        if d_vocab == 5000 and kind in ("flat", "uniform") and top_p > 0.2 and sampling.top_k is None:
            assert not found.any()  # so that the whole vocabulary has been drawn from


@pytest.mark.parametrize("d_vocab", [20_000, 32_768])
@pytest.mark.parametrize("kind", KINDS)
def test_large_vocabularies_too(kind: str, d_vocab: int) -> None:
    """Where the slice is taken by way of a table."""
    logits, u = KINDS[kind](6, d_vocab), stream(6)
    for sampling in (Sampling(top_p=0.02, frequency_penalty=0.0), Sampling(top_p=0.9, frequency_penalty=0.0)):
        expected = nucleus.drawn_by_sorting(logits, sampling, u, None)
        assert next_tokens(logits, sampling, u).equal(expected)
        drawn, found = nucleus.drawn_by_slice(logits, sampling, u, None)
        assert drawn[found].equal(expected[found])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [64, 256])
def test_the_table_gives_the_largest(kind: str, width: int) -> None:
    x = KINDS[kind](3, 1 << 15).float()
    x[1, :300] = 50.0  # neighbours, which are in one line of the table
    x[2, :: 1 << 11] = 50.0  # one below the other
    values, ids = nucleus._topk(x, width)
    assert values.equal(x.topk(width, dim=1).values)
    assert x.gather(1, ids).equal(values)
    assert all(row.unique().numel() == width for row in ids)


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The rows whose slice is taken and those whose bins are, as long as each row is weighed once."""
    seen: dict[str, list[int]] = {"_top_slice": [], "_drawn_from_bins": []}

    def noted(name: str) -> Callable[..., Any]:
        function = getattr(nucleus, name)

        def noting(group: whole_weights.WeighedRows, rows: list[int], *args: Any, **kwargs: Any) -> Any:
            seen[name] += [group.rows.start + row for row in rows]
            return function(group, rows, *args, **kwargs)

        return noting

    for name in seen:
        monkeypatch.setattr(nucleus, name, noted(name))
    monkeypatch.delattr(nucleus, "drawn_by_bins")  # which weighs anew
    return seen


def test_only_rows_that_may_hold_the_nucleus_are_asked_for_their_largest(visits: dict[str, list[int]]) -> None:
    logits, u, sampling = gaussian(60, 5000, scale=4.0), stream(60), Sampling(frequency_penalty=0.0)
    flat = torch.rand(60, generator=torch.Generator().manual_seed(7)) < 0.4
    logits[flat] *= 0.05
    assert next_tokens(logits, sampling, u).equal(nucleus.drawn_by_sorting(logits, sampling, u, None))
    assert visits["_top_slice"] == (~flat).nonzero().flatten().tolist()
    assert visits["_drawn_from_bins"] == flat.nonzero().flatten().tolist()


def test_a_row_whose_slice_is_too_small_is_not_weighed_again(visits: dict[str, list[int]]) -> None:
    logits, u, sampling = gaussian(60, 5000, scale=1.7), stream(60), Sampling(frequency_penalty=0.0)
    assert next_tokens(logits, sampling, u).equal(nucleus.drawn_by_sorting(logits, sampling, u, None))
    assert set(visits["_top_slice"]) & set(visits["_drawn_from_bins"])


def test_a_device_draws_the_same_in_groups_of_rows_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, u = gaussian(11, 700), stream(11)
    logits[::4] *= 0.05
    counts = TokenCounts.of_prompts(logits.topk(4).indices)
    expected = {s: next_tokens(logits, s, u, counts) for s in (Sampling(), PLAIN, Sampling(top_k=9, top_p=0.8))}
    monkeypatch.setattr(whole_weights, "_ELEMENTS_AT_ONCE", 3000)  # four rows at a time
    with pretending():
        there = logits.to("pretend"), u.to("pretend"), counts.to("pretend")
        for sampling, right in expected.items():
            with waits() as waited:
                drawn = next_tokens(there[0], sampling, *there[1:])
                guessed, certain = likely_tokens(there[0], sampling, *there[1:])
            assert not waited
            assert drawn.cpu().equal(right)
            assert guessed.cpu()[certain.cpu()].equal(right[certain.cpu()])
            assert 0.5 < certain.cpu().float().mean() <= 1
