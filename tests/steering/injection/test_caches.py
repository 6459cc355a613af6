"""`steer` and caches: of activations, of shared prefixes, of prompts that come in pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import steerlens as sl
from steerlens.models import decode_logits, is_bridge, prefill
from tests import reference
from tests.conftest import Case
from tests.steering.injection.cases import close, expected, ids_of, vector_on


def test_run_with_cache_shows_the_steered_stream(case: Case) -> None:
    ids, vector = ids_of(6), vector_on(case.model, 1)
    name = "blocks.1.hook_resid_pre"
    _, base = case.model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    with sl.steer(case.model, vector):
        _, steered = case.model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    difference = (steered[name] - base[name])[0]
    close(difference[:2], vector.values)
    assert not difference[2:].any()


def test_a_shared_prefix_computed_before_the_block(case: Case) -> None:
    """With a cache from outside, what is counted from the prompt's end has no place; positions keep their numbers."""
    ids, vector = ids_of(8), vector_on(case.model, 1, 1)
    mask = torch.ones(1, 8, dtype=torch.long)

    def rest(cache: Any) -> Tensor:
        return chunk(case.model, torch.tensor([ids[5:]]), mask, cache)

    with torch.no_grad():
        _, cache = prefill(case.model, torch.tensor([ids[:5]]), mask[:, :5])
        with sl.steer(case.model, vector, placement="all") as receipts:
            got = rest(cache)
        added = reference.placed(vector.values, "all", 8, first=5)
        close(got[0].log_softmax(-1), reference.log_probs(case.hf, ids, {1: added})[5:])
        assert receipts[0].positions == (5, 6, 7)
        _, cache = prefill(case.model, torch.tensor([ids[:5]]), mask[:, :5])
        with sl.steer(case.model, vector, placement=6):
            got = rest(cache)
        added = reference.placed(vector.values, 6, 8)
        close(got[0].log_softmax(-1), reference.log_probs(case.hf, ids, {1: added})[5:])
        for placement in ("front", "back", "mid", "last", -1, 4):
            _, cache = prefill(case.model, torch.tensor([ids[:5]]), mask[:, :5])
            with (
                pytest.raises(sl.SteerlensError, match="never added"),
                sl.steer(case.model, vector, placement=placement),
            ):
                rest(cache)


def chunk(model: Any, tokens: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """Logits of the next chunk of a prompt; the cache grows."""
    if is_bridge(model):
        logits, _ = model(
            tokens, attention_mask=mask, past_key_values=cache, use_cache=True, return_type="logits_and_cache"
        )
        return logits
    return model(tokens, attention_mask=mask[:, -tokens.shape[1] :], past_kv_cache=cache)


@pytest.mark.parametrize("placement", ["front", 1, "all"])
@pytest.mark.parametrize("sizes", [(4, 4), (3, 1, 2, 2)])
def test_a_prompt_prefilled_in_chunks(case: Case, placement: Any, sizes: tuple[int, ...]) -> None:
    rows = [ids_of(8), ids_of(8, 1)]
    vector = vector_on(case.model, 1, 1 if placement == "all" else 2)
    mask, done = torch.ones(2, 8, dtype=torch.long), sizes[0]
    tokens = torch.tensor(rows)
    with torch.no_grad(), sl.steer(case.model, vector, placement=placement):
        last, cache = prefill(case.model, tokens[:, :done], mask[:, :done])
        got = [last[:, None]]
        for size in sizes[1:]:
            got.append(chunk(case.model, tokens[:, done : done + size], mask[:, : done + size], cache))
            done += size
    for number, row in enumerate(rows):
        wanted = expected(case.hf, row, vector, placement)[sizes[0] - 1 :]
        close(torch.cat([part[number] for part in got]).log_softmax(-1), wanted)


@pytest.mark.parametrize("placement", ["front", "mid", "back", "last", *reference.RANGES, 1])
def test_prefill_and_decode_of_a_left_padded_batch(case: Case, placement: Any) -> None:
    rows = [ids_of(7), ids_of(4, 1)]
    vector = vector_on(case.model, 1, 1 if placement in (*reference.RANGES, "last") else 2)
    tokens, mask = torch.tensor([rows[0], [0, 0, 0, *rows[1]]]), torch.tensor([[1] * 7, [0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad(), sl.steer(case.model, vector, placement=placement) as receipts:
        logits, cache = prefill(case.model, tokens, mask)
        for new in ([3, 0], [0, 9]):
            mask = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], 1)
            logits = decode_logits(case.model, torch.tensor(new)[:, None], mask, cache)
    for number, row in enumerate(rows):
        whole = [*row, (3, 0)[number], (0, 9)[number]]
        values = reference.placed(vector.values, placement, len(row), total=len(whole))
        close(logits[number].log_softmax(-1), reference.log_probs(case.hf, whole, {1: values})[-1])
    assert receipts[0].applications == {"all": 6, "from_last": 6, "generated": 4}.get(placement, 2)
