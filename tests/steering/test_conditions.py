"""Conditions: what a caller may write for "steered by this", and what it is taken to mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import ModelStamp
from steerlens.steering import as_condition, as_conditions

STAMP = ModelStamp("toy", n_layers=4, d_model=8, d_vocab=100, folded=True, centred=True, sketch=(1.0,) * 16)


def vector(layer: int = 1, label: str = "a") -> sl.SteeringVector:
    return sl.SteeringVector(torch.ones(1, 8), layer=layer, model=STAMP, label=label)


def test_the_baseline_is_a_condition() -> None:
    baseline = as_condition(None)
    assert (baseline.injections, baseline.label, baseline.layer, baseline.coeff) == ((), "unsteered", None, 0.0)
    assert baseline.placement == ""
    assert as_condition(()).label == "unsteered"


def test_one_vector() -> None:
    condition = as_condition(5 * vector())
    assert (condition.label, condition.layer, condition.coeff) == ("5 × (a)", 1, 5.0)
    assert condition.placement == "front"


def test_several_vectors_act_together() -> None:
    condition = as_condition((vector(1), 2 * vector(2, "b"), sl.Injection(vector(1), "back")))
    assert len(condition.injections) == 3
    assert condition.label == "a, 2 × (b), a"
    assert condition.layer is None
    assert math.isnan(condition.coeff)
    assert condition.placement == "front, back"
    assert as_condition((vector(1), vector(1, "b"))).layer == 1


def test_whose_placement_it_is() -> None:
    at_back = vector().on("back")
    assert sl.Injection(at_back).placement == "back"
    assert sl.Injection(at_back, 3).placement == 3
    assert sl.Injection(at_back, 0).placement == 0, "0 is an index, not nothing"
    condition = as_condition((at_back, sl.Injection(at_back, "all")), placement="mid")
    assert [one.placement for one in condition.injections] == ["mid", "all"]


def test_a_list_is_many_conditions() -> None:
    many = as_conditions([None, vector(), (vector(), vector(2))])
    assert [len(one.injections) for one in many] == [0, 1, 2]
    assert len(as_conditions((vector(), vector()))) == 1
    assert len(as_conditions(None)) == 1
    named = sl.Condition((sl.Injection(vector()),), label="mine")
    assert as_conditions([named])[0] is named


@pytest.mark.parametrize(
    "thing", [5, "love", [None], [vector()], torch.ones(1, 8), {"a": vector()}, (vector(), None), (3,)]
)
def test_things_that_steer_nothing(thing: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="expected a SteeringVector"):
        as_condition(thing)


def test_an_empty_list_is_a_mistake() -> None:
    with pytest.raises(sl.SteerlensError, match="list of conditions is empty"):
        as_conditions([])


@pytest.mark.parametrize("thing", [None, 5, torch.ones(1, 8)])
def test_an_injection_wants_a_vector(thing: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="expected a SteeringVector"):
        sl.Injection(thing)


def test_a_condition_wants_injections() -> None:
    for thing in ((vector(),), (None,), ("love",)):
        with pytest.raises(sl.SteerlensError, match="expected an Injection"):
            sl.Condition(thing)  # type: ignore[arg-type]
    assert len(sl.Condition([sl.Injection(vector())]).injections) == 1  # type: ignore[arg-type]


def test_of_puts_weighted_vectors_together(any_model: Any) -> None:
    """One label, coefficient 1 as a whole, and the same effect as the tuple."""
    early, late = (sl.actadd(any_model, " love", " hate", layer=layer) for layer in (0, 2))
    both = sl.Condition.of([0.5 * early, sl.Injection(2 * late, "back")], label="both")
    assert (both.label, both.coeff, both.layer) == ("both", 1.0, None)
    assert ((3 * both).label, (3 * both).coeff, (2 * (3 * both)).coeff) == ("3 × (both)", 3.0, 6.0)
    assert (1 * both).label == "both"
    steered = sl.next_token_logits(any_model, "I said that", [3 * both, (1.5 * early, sl.Injection(6 * late, "back"))])
    assert torch.equal(steered[0], steered[1])
    plain = sl.Condition.of([early])
    assert ((4 * plain).label, (4 * plain).coeff) == ((4 * early).title, 4.0)
    assert sl.Condition.of([both, early]).injections[:2] == both.injections
    for parts, words in (([], "parts is empty"), ([4], "expected a SteeringVector"), (4, "parts must be a list")):
        with pytest.raises(sl.SteerlensError, match=words):
            sl.Condition.of(parts)  # type: ignore[arg-type]
