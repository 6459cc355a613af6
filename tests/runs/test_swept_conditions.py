"""Conditions in sweeps: several vectors with weights as one, and gates."""

from __future__ import annotations

from typing import Any

import pytest

import steerlens as sl


def test_conditions_are_swept_as_a_whole(any_model: Any) -> None:
    """With random vectors of the same norms beside them, and a gate for both."""
    early, late = (sl.actadd(any_model, " love", " hate", layer=layer) for layer in (0, 2))
    both = sl.Condition.of([0.5 * early, late], label="both")
    gate = sl.Gate(early.at(1), above=-1e9)
    few = {"n": 2, "max_new_tokens": 2, "metrics": [sl.metrics.length()], "progress": False, "controls": "random"}
    done = sl.sweep(any_model, both, "I said that", coeffs=[1, 4], **few)
    assert done.summary[["role", "coeff"]].values.tolist() == [
        ["unsteered", 0.0], ["steered", 1.0], ["steered", 4.0], ["random", 1.0], ["random", 4.0],
    ]  # fmt: skip
    steered = sl.generate(any_model, "I said that", [None, both, 4 * both], n=2, max_new_tokens=2)
    assert done.frame.completion[:6].tolist() == steered.completion.tolist()
    receipts = done.frame.attrs["receipts"]
    assert [one["norm"] for one in receipts[4]] == pytest.approx([one["norm"] for one in receipts[2]])
    done.plot(), done.effects()
    gated = sl.sweep(any_model, both, "I said that", coeffs=[4], gate=gate, **few)
    assert gated.frame.completion[2:4].tolist() == done.frame.completion[4:6].tolist()
    assert all(one["fired"] == (0,) for mine in gated.frame.attrs["receipts"][1:] for one in mine)
    with pytest.raises(sl.SteerlensError, match="none of the conditions acts on the layers"):
        sl.sweep(any_model, both, "I said that", layers=[0], **few)
    with pytest.raises(sl.SteerlensError, match="one vector per layer"):
        sl.sweep(any_model, [both, sl.Condition.of([early, late])], "I said that", **few)
    with pytest.raises(sl.SteerlensError, match="is solved for one vector"):
        sl.sweep(any_model, both, "I said that", coeffs=[sl.iso_kl(0.5)], **few)


def test_a_condition_of_several_vectors_is_confirmed(any_model: Any) -> None:
    """With its weights and its gate."""
    early, late = (sl.actadd(any_model, " love", " hate", layer=layer) for layer in (0, 2))
    both = sl.Condition.of([0.5 * early, late], label="both", gate=sl.Gate(early.at(1), above=-1e9))
    few = {"n": 2, "max_new_tokens": 2, "metrics": [sl.metrics.length()], "progress": False, "controls": "random"}
    done = sl.sweep(any_model, both, "I said that", coeffs=[4], **few)
    again = done.confirm(any_model, prompts="They went home")
    assert again.settings["condition"] == "4 × (both)"
    steered = sl.generate(any_model, "They went home", 4 * both, n=2, max_new_tokens=2, seed=again.frame.seed.iloc[0])
    assert again.frame[again.frame.role == "steered"].completion.tolist() == steered.completion.tolist()
