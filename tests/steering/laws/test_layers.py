"""Laws 3 and 4: steering acts from its layer on, and vectors add up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import steerlens as sl
from tests import reference
from tests.conftest import Case
from tests.steering.laws.cases import N_LAYERS, close, few, log_probs, random_ids, random_vector, span_for

# ------------------------------------------------------------------------------------------------------------- law 3


@pytest.mark.parametrize("placement", ["front", "all", -3])
def test_law_3_nothing_before_the_layer_changes(model: Any, placement: Any) -> None:
    layer = 2
    vector = random_vector(model, layer, span_for(placement), scale=5)

    def earlier(name: str) -> bool:
        return name.startswith(("blocks.0.", "blocks.1.", "hook_embed", "hook_pos_embed", "embed.", "pos_embed."))

    ids = torch.tensor([random_ids(9)])
    _, base = model.run_with_cache(ids, names_filter=earlier, return_cache_object=False)
    with sl.steer(model, vector, placement=placement):
        _, steered = model.run_with_cache(ids, names_filter=earlier, return_cache_object=False)
    assert "blocks.1.hook_resid_post" in steered
    assert base.keys() == steered.keys()
    for name, activation in base.items():
        if isinstance(activation, torch.Tensor):
            assert torch.equal(activation, steered[name]), name


def test_law_3_the_activation_before_the_hook_is_not_overwritten(model: Any) -> None:
    """A hook that works in place would also change what the user recorded one hook earlier."""
    ids = torch.tensor([random_ids(6)])
    recorded: list[Tensor] = []

    def record(resid: Tensor, hook: Any) -> None:
        recorded.append(resid)  # the very tensor, no copy

    model.run_with_hooks(ids, fwd_hooks=[("blocks.0.hook_resid_post", record)])
    kept = recorded[0].clone()
    with sl.steer(model, random_vector(model, 1, 3, scale=5), random_vector(model, 1, 1).on("all")):
        model.run_with_hooks(ids, fwd_hooks=[("blocks.0.hook_resid_post", record)])
    assert torch.equal(recorded[1], kept)


@pytest.mark.parametrize("placement", ["front", "all"])
def test_law_3_logits_at_bos_do_not_change(model: Any, placement: Any) -> None:
    ids = random_ids(8)
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    base = log_probs(model, ids)[0]
    with sl.steer(model, 5 * (vector if placement == "front" else vector.at(1)), placement=placement):
        steered = log_probs(model, ids)[0]
    assert torch.equal(steered[0], base[0])
    assert (steered[1:] - base[1:]).abs().max() > 0.1


# ------------------------------------------------------------------------------------------------------------- law 4


@few
@given(
    places=st.lists(
        st.tuples(st.integers(0, N_LAYERS - 1), st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=4
    ),
    data=st.data(),
)
@example(places=[(1, 1, 2), (1, 1, 2)], data=None)
def test_law_4_vectors_add_up_in_any_order(case: Case, places: list[tuple[int, int, int]], data: Any) -> None:
    ids, width = random_ids(8), 8
    injections, sums = [], {}
    for number, (layer, first, span) in enumerate(places):
        vector = random_vector(case.model, layer, span, seed=number)
        injections.append(sl.Injection(vector, first))
        sums[layer] = sums.get(layer, 0) + reference.placed(vector.values, first, width)
    shuffled = data.draw(st.permutations(injections)) if data else injections[::-1]
    expected = reference.log_probs(case.hf, ids, sums)
    for order in (injections, shuffled):
        with sl.steer(case.model, *order):
            close(log_probs(case.model, ids)[0], expected)


def test_law_4_several_vectors_at_one_place_equal_their_sum(model: Any) -> None:
    ids = random_ids(8)
    a, b = random_vector(model, 1, 3, seed=1), random_vector(model, 1, 2, seed=2)
    results = []
    for vectors in [(a, b), (b, a), (a + b,), (a, b, a, -1 * a), (sl.Condition((sl.Injection(a), sl.Injection(b))),)]:
        with sl.steer(model, *vectors):
            results.append(log_probs(model, ids))
    for result in results[1:]:
        close(result, results[0])
    with sl.steer(model, a), sl.steer(model, b):  # nested blocks act together
        close(log_probs(model, ids), results[0])
    with sl.steer(model, a, a):  # the same vector twice counts twice
        twice = log_probs(model, ids)
    with sl.steer(model, 2 * a):
        close(log_probs(model, ids), twice)
