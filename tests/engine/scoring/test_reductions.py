"""`reduce_next_tokens` gives what the whole logits would: log-probabilities, ranks, sets, entropy, divergence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.engine.reductions import reduce_next_tokens
from steerlens.steering.conditions import as_condition
from steerlens.steering.prompts import prompt_ids
from tests.engine.scoring.cases import PROMPTS, plain_logits, vector


@pytest.mark.parametrize(("batch_size", "base"), [(None, 0), (1, 2), (2, -1), (5, 0)])
@pytest.mark.parametrize("positions", ["last", "all"])
def test_reductions_equal_those_of_the_logits(
    gpt2: Any, batch_size: int | None, positions: Any, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.engine.passes.slice_rows", lambda model, budget: 4)
    steering = [None, vector(gpt2, 2, 1, 1, 3.0), vector(gpt2, 0, 2, 2), None, (vector(gpt2, 1), vector(gpt2, 2))]
    prompts = [PROMPTS[3], PROMPTS[0], PROMPTS[1], PROMPTS[1]]
    targets = torch.tensor([[5, 77, 901], [0, 1, 2], [8, 8, 8], [3, 4, 5]])
    sets = [[3, 9, 9, 27], list(range(100, 4000))]
    found = reduce_next_tokens(
        gpt2, prompts, steering, targets=targets, ranks=True, sets=sets, entropy=True, base=base, top_k=6, likely=3,
        positions=positions, batch_size=batch_size,
    )  # fmt: skip
    rows = [prompt_ids(gpt2, prompt) for prompt in prompts]
    assert found.prompts == tuple(map(tuple, rows))
    close = {"rtol": 1e-5, "atol": 2e-5}
    for p, ids in enumerate(rows):
        logprobs = torch.stack([plain_logits(gpt2, ids, as_condition(one)) for one in steering]).log_softmax(-1)
        for c, lp in enumerate(logprobs):
            for t in [len(ids) - 1] if positions == "last" else range(len(ids)):
                cell = (c, p) if positions == "last" else (c, p, t)
                mine, other = lp[t], logprobs[base, t]
                torch.testing.assert_close(found.logprobs[cell], mine[targets[p]], **close)
                expected_ranks = torch.stack([(mine > mine[i]).sum() for i in targets[p]])
                assert (found.ranks[cell] - expected_ranks).abs().max() <= 1  # two tokens may be a rounding apart
                in_sets = torch.stack([mine.exp()[sorted(set(ids_))].sum() for ids_ in sets]).log()
                torch.testing.assert_close(found.set_logprobs[cell], in_sets, **close)
                torch.testing.assert_close(found.entropy[cell], -(mine.exp() * mine).sum(), **close)
                kl = (mine.exp() * (mine - other)).sum()
                torch.testing.assert_close(found.kl[cell], kl.clamp_min(0), **close)
                torch.testing.assert_close(found.likely.logprobs[cell], mine.topk(3).values, **close)
                for top, sign in ((found.rises, 1), (found.falls, -1)):
                    change = top.logprobs[cell] - top.base_logprobs[cell]
                    torch.testing.assert_close(
                        change, sign * (sign * (mine - other)).topk(6).values, rtol=1e-5, atol=4e-5
                    )
                    torch.testing.assert_close(top.logprobs[cell], mine[top.ids[cell]], **close)
            if positions == "all":
                assert found.kl[c, p, len(ids) :].isnan().all()
                assert (found.rises.ids[c, p, len(ids) :] == -1).all()
    assert (found.kl[base][~found.kl[base].isnan()] == 0).all()


def test_kl_splits_into_disruption_and_effect(any_model: Any) -> None:
    """KL = KL of the two-way split (in the set or not) + what is left within the two parts (law 13)."""
    words = [17, 423, 3000]
    v = vector(any_model, 1, 2, size=2.0)
    found = reduce_next_tokens(any_model, PROMPTS[2], [None, v], sets=[words], base=0)
    lp = sl.next_token_logits(any_model, PROMPTS[2], [None, v]).log_softmax(-1)
    inside = torch.zeros(lp.shape[1], dtype=torch.bool).index_fill(0, torch.tensor(words), True)
    split, within = torch.tensor(0.0), torch.tensor(0.0)
    for part in (inside, ~inside):
        base, mine = lp[:, part].logsumexp(1)
        split += mine.exp() * (mine - base)
        within += (lp[1, part].exp() * ((lp[1, part] - mine) - (lp[0, part] - base))).sum()
    torch.testing.assert_close(found.kl[1, 0], split + within, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.set_logprobs[:, 0, 0], lp[:, inside].logsumexp(1), rtol=1e-5, atol=1e-5)


def test_impossible_tokens_do_not_spoil_sums(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding of a vocabulary may have logit −inf: it has probability 0 and counts for nothing."""
    b_U = any_model.unembed.b_U if hasattr(any_model.unembed, "b_U") else any_model.unembed.bias
    # A vector knows the weights of the model that it is declared for, and these change.
    before = b_U[-5:].clone()
    with torch.no_grad():
        b_U[-5:] = -torch.inf
    try:
        found = reduce_next_tokens(any_model, "The dog", [None, vector(any_model, 1)], entropy=True, base=0, top_k=3)
    finally:
        with torch.no_grad():
            b_U[-5:] = before
    assert found.entropy.isfinite().all()
    assert found.kl.isfinite().all()
    assert found.kl[1] > 0
