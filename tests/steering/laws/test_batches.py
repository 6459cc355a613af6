"""Laws 6, 7 and 9: a batch equals its rows, a cache changes nothing, the random state is the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import steerlens as sl
from steerlens.models import stamp
from tests import reference
from tests.conftest import Case, plain_model
from tests.steering.laws.cases import (
    D_MODEL,
    N_LAYERS,
    PLACEMENTS,
    close,
    few,
    log_probs,
    random_ids,
    random_vector,
    span_for,
)


def greedy(model: Any, ids: Sequence[int], n: int, *, cache: bool) -> list[int]:
    """TransformerLens' own greedy generation."""
    out = model.generate(
        torch.tensor([list(ids)]),
        max_new_tokens=n,
        do_sample=False,
        use_past_kv_cache=cache,
        stop_at_eos=False,
        return_type="tokens",
        verbose=False,
    )
    return out[0, len(ids) :].tolist()


# ------------------------------------------------------------------------------------------------------------- law 6


@few
@given(
    lengths=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    placement=st.sampled_from(PLACEMENTS),
    side=st.sampled_from(["left", "right"]),
    layer=st.integers(0, N_LAYERS - 1),
)
@example(lengths=[4, 9, 6], placement="back", side="right", layer=1)
@example(lengths=[4, 9, 6], placement="mid", side="left", layer=1)
@example(lengths=[9, 4, 4], placement="front", side="left", layer=0)
@example(lengths=[5, 8, 3], placement="all", side="left", layer=2)
@example(lengths=[5, 8, 3], placement="prompt", side="right", layer=1)
@example(lengths=[5, 8, 3], placement="from_last", side="left", layer=0)
@example(lengths=[5, 8, 3], placement="from_last", side="right", layer=1)
@example(lengths=[3, 8, 5], placement=-3, side="right", layer=2)
def test_law_6_a_batch_equals_its_rows(case: Case, lengths: list[int], placement: Any, side: str, layer: int) -> None:
    shortest = 4 if placement in (2, -3) else 2  # else the vector would not fit, which is another test
    lengths = [max(length, shortest) for length in lengths]
    rows, width = [random_ids(n, seed=i) for i, n in enumerate(lengths)], max(lengths)
    vector = random_vector(case.model, layer, span_for(placement, 2))
    left = side == "left"
    padded = [[0] * (width - len(r)) + r if left else r + [0] * (width - len(r)) for r in rows]
    mask = [[0] * (width - n) + [1] * n if left else [1] * n + [0] * (width - n) for n in lengths]
    with sl.steer(case.model, vector, placement=placement) as receipts:
        batch = log_probs(case.model, padded, attention_mask=torch.tensor(mask))
    for number, (ids, n) in enumerate(zip(rows, lengths, strict=True)):
        added = {layer: reference.placed(vector.values, placement, n)}
        real = batch[number, width - n :] if left else batch[number, :n]
        close(real, reference.log_probs(case.hf, ids, added))
    assert receipts[0].applications == len(rows)


# ------------------------------------------------------------------------------------------------------------- law 7


PROMPT, NEW, LAYER = random_ids(6, seed=3), 6, 1


@cache
def expected_tokens(architecture: str, placement: Any) -> list[int]:
    """Greedy tokens of the plain model, steered at `placement` (None: not) by the vector of the test below."""
    values = strong_values(placement)

    def additions(total: int) -> Any:
        return placement is not None and {
            LAYER: reference.placed(values, placement, len(PROMPT), total=total),
        }

    return reference.greedy(plain_model(architecture), PROMPT, NEW, additions)


def strong_values(placement: Any) -> Tensor:
    return torch.randn(span_for(placement), D_MODEL, generator=torch.Generator().manual_seed(1)) * 8


@pytest.mark.parametrize("placement", [*PLACEMENTS, "generated"])
def test_law_7_generation_with_and_without_cache(case: Case, placement: Any) -> None:
    vector = sl.SteeringVector(strong_values(placement), layer=LAYER, model=stamp(case.model))
    expected = expected_tokens(case.architecture, placement)
    assert expected != expected_tokens(case.architecture, None), "this vector is too weak to test anything"
    with sl.steer(case.model, vector, placement=placement):
        assert greedy(case.model, PROMPT, NEW, cache=True) == expected
        assert greedy(case.model, PROMPT, NEW, cache=False) == expected
        close(  # a plain call afterwards does not take the last prompt's length for its own
            log_probs(case.model, [*PROMPT, 5, 6])[0],
            reference.log_probs(case.hf, [*PROMPT, 5, 6], {LAYER: reference.placed(vector.values, placement, 8)}),
        )
    assert greedy(case.model, PROMPT, NEW, cache=True) == expected_tokens(case.architecture, None)


# ------------------------------------------------------------------------------------------------------------- law 9


def test_law_9_the_callers_random_state_is_untouched(model: Any) -> None:
    import random

    import numpy as np

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    sl.mean_difference(model, ["good"], ["bad"], layer=1)
    with sl.steer(model, vector):
        log_probs(model, random_ids(6))
        greedy(model, random_ids(6), 3, cache=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
