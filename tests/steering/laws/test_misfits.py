"""Law 11: a vector that does not fit the prompt or the model is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import ModelStamp, stamp
from tests.conftest import Case
from tests.steering.laws.cases import D_MODEL, N_LAYERS, log_probs, random_ids, random_vector


@pytest.mark.parametrize("placement", ["front", "mid", "back", 0, -2])
def test_law_11_a_vector_longer_than_the_prompt(gpt2: Any, placement: Any) -> None:
    model, vector = gpt2, random_vector(gpt2, 1, 5)
    with (
        pytest.raises(sl.SteerlensError, match=r"spans 5 positions.*3 tokens"),
        sl.steer(model, vector, placement=placement),
    ):
        log_probs(model, random_ids(3))
    with (
        pytest.raises(sl.SteerlensError, match=r"spans 5 positions.*3 tokens"),
        sl.steer(model, vector, placement=placement),
    ):
        log_probs(
            model,
            [random_ids(6), [0, 0, 0, *random_ids(3)]],
            attention_mask=torch.tensor([[1] * 6, [0, 0, 0, 1, 1, 1]]),
        )


@pytest.mark.parametrize(("placement", "span"), [(4, 2), (5, 1), (-6, 1), (-1, 2), (50, 1)])
def test_law_11_an_index_outside_the_prompt(gpt2: Any, placement: int, span: int) -> None:
    with (
        pytest.raises(sl.SteerlensError, match="use an index from"),
        sl.steer(gpt2, random_vector(gpt2, 1, span), placement=placement),
    ):
        log_probs(gpt2, random_ids(5))


@pytest.mark.parametrize("placement", ["all", "last", "prompt", "generated", "from_last"])
def test_law_11_a_long_vector_where_only_one_position_goes(model: Any, placement: Any) -> None:
    with (
        pytest.raises(sl.SteerlensError, match=r"takes a vector of 1 position.*spans 2"),
        sl.steer(model, random_vector(model, 1, 2), placement=placement),
    ):
        log_probs(model, random_ids(5))


@pytest.mark.parametrize("layer", [-1, N_LAYERS, 1000])
def test_law_11_a_layer_out_of_range(any_model: Any, layer: int) -> None:
    with pytest.raises(sl.SteerlensError, match="out of range for a model of 3 layers; use 0 to 2"):
        sl.actadd(any_model, "Love", "Hate", layer=layer)
    with pytest.raises(sl.SteerlensError, match="out of range"):
        sl.actadd(any_model, "Love", "Hate", layers=[0, layer])
    with pytest.raises(sl.SteerlensError, match="out of range"):
        sl.SteeringVector(torch.zeros(1, D_MODEL), layer=layer, model=stamp(any_model))


def test_law_11_a_vector_of_another_model(case: Case) -> None:
    vector = random_vector(case.model, 1, 2)
    origin = vector.model
    others = {
        "d_model is": ModelStamp(**{**vars(origin), "d_model": 16}),
        "n_layers is": ModelStamp(**{**vars(origin), "n_layers": 12}),
        "layer-norm folding": ModelStamp(**{**vars(origin), "folded": not origin.folded}),
        "centring": ModelStamp(**{**vars(origin), "centred": not origin.centred}),
        "weights differ": ModelStamp(**{**vars(origin), "sketch": tuple(-x for x in origin.sketch)}),
    }
    for words, other in others.items():
        stranger = sl.SteeringVector(torch.ones(2, other.d_model), layer=1, model=other)
        with pytest.raises(sl.SteerlensError, match=words), sl.steer(case.model, stranger):
            pytest.fail("the block must not be entered")


def test_law_11_a_one_token_prompt(model: Any) -> None:
    """[BOS] alone: what can be added there is, what cannot is an error, nothing is silent."""
    one, ids = random_vector(model, 1, 1, scale=3), [0]
    base = log_probs(model, ids)
    for placement in ("front", "mid", "back", "last", 0, -1):
        with sl.steer(model, one, placement=placement) as receipts:
            assert (log_probs(model, ids) - base).abs().max() > 0.01
        assert receipts[0].positions == (0,)
    with (
        pytest.raises(sl.SteerlensError, match="spans 2 positions but the prompt has 1 token"),
        sl.steer(model, random_vector(model, 1, 2)),
    ):
        log_probs(model, ids)
    # "all" and "prompt" mean positions after BOS: there is none.
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, one, placement="prompt"):
        assert torch.equal(log_probs(model, ids), base)
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, one, placement="all"):
        assert torch.equal(log_probs(model, ids), base)
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, one, placement="all"):
        log_probs(model, [[0, 0], [0, 0]], attention_mask=torch.tensor([[0, 1], [0, 1]]))
