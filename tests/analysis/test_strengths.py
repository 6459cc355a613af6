"""Strengths: the coefficient that is found has the norm, KL or surprise that was asked for, by independent measures."""

from __future__ import annotations

import warnings

import pytest
import torch

import steerlens as sl
from steerlens.analysis.bracketing import TOLERANCE
from steerlens.analysis.strengths import EVALUATIONS
from tests.conftest import KINDS, loaded
from tests.reference import N_LAYERS

PROMPTS = ["I went up to my friend and said", "The weather today is rather nice, and"]


@pytest.fixture(scope="module")
def vectors(any_model):
    """At every layer, a vector of one position for all tokens, and a pair's at the front."""
    everywhere = sl.mean_difference(any_model, ["a wedding", "the bride"], ["a car", "the sea"], layers="all")
    return [*everywhere.values(), *sl.actadd(any_model, "Love you", "Hate", layers="all").values()]


def next_token_kl(model, prompt, vector) -> float:
    """KL(steered ‖ unsteered) after the prompt, by the model's own passes."""
    tokens = model.to_tokens(prompt)
    with torch.no_grad():
        base = model(tokens)[0, -1].double().log_softmax(-1)
        with sl.steer(model, vector):
            steered = model(tokens)[0, -1].double().log_softmax(-1)
    return float((steered.exp() * (steered - base)).sum())


def test_iso_kl_has_the_kl_that_was_asked_for(any_model, vectors) -> None:
    """The largest target that every vector reaches differs by model: half of the least that length 3 gives."""
    long = sl.solve_strengths(any_model, vectors, PROMPTS, sl.norm_share(3.0))
    reachable = [
        sum(next_token_kl(any_model, prompt, coeff * vector) for prompt in PROMPTS) / 2
        for coeff, vector in zip(long["coeff"], vectors, strict=True)
    ]
    target = 0.5 * min(reachable)
    found = sl.solve_strengths(any_model, vectors, PROMPTS, sl.iso_kl(target))
    assert found["found"].all() and (found["evaluations"] <= EVALUATIONS).all()
    assert found["layer"].tolist() == [*range(N_LAYERS)] * 2
    for coeff, vector in zip(found["coeff"], vectors, strict=True):
        kl = sum(next_token_kl(any_model, prompt, coeff * vector) for prompt in PROMPTS) / 2
        assert kl == pytest.approx(target, rel=TOLERANCE + 0.01)


def test_norm_share_is_a_share_of_the_stream(any_model) -> None:
    vector = sl.mean_difference(any_model, ["a wedding"], ["a car"], layer=1)
    (row,) = sl.solve_strengths(any_model, vector, PROMPTS, sl.norm_share(0.3)).to_dict("records")
    lengths = []
    for prompt in PROMPTS:
        _, cache = any_model.run_with_cache(any_model.to_tokens(prompt), names_filter="blocks.1.hook_resid_pre")
        lengths += cache["blocks.1.hook_resid_pre"][0, 1:].norm(dim=-1).tolist()  # all but BOS
    shares = [row["coeff"] * vector.norm / length for length in lengths]
    assert sum(shares) / len(shares) == pytest.approx(0.3, rel=1e-4)


def test_iso_surprise_is_above_unsteered() -> None:
    model = loaded("gpt2", KINDS[0])
    vector = sl.mean_difference(model, ["a wedding"], ["a car"], layer=1)
    (row,) = sl.solve_strengths(model, vector, PROMPTS, sl.iso_surprise(0.05)).to_dict("records")
    frame = sl.generate(model, PROMPTS, [None, row["coeff"] * vector], n=4, max_new_tokens=20, surprise=True)
    base, steered = frame.groupby("condition")["surprise"].mean()
    assert steered - base == pytest.approx(row["reached"], abs=1e-3)
    assert row["found"] == (abs(row["reached"] / 0.05 - 1) <= TOLERANCE)


def test_what_cannot_be_reached_says_so() -> None:
    model = loaded("gpt2", KINDS[0])
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    rows = sl.solve_strengths(model, [vector, 0 * vector], PROMPTS, sl.iso_kl(100.0)).to_dict("records")
    assert [row["found"] for row in rows] == [False, False]
    assert rows[0]["why"].startswith("saturates: no more than ") and 0 < rows[0]["reached"] < 100
    assert rows[1]["why"] == "the vector is zero" and rows[1]["coeff"] == 0


def test_an_operation_without_strength_says_so() -> None:
    model = loaded("gpt2", KINDS[0])
    gone = sl.Injection(sl.mean_difference(model, ["a wedding"], ["a car"], layer=1), operation="ablate")
    (row,) = sl.solve_strengths(model, gone, PROMPTS, sl.iso_kl(1e-9)).to_dict("records")
    assert not row["found"] and row["why"].startswith("no less than ")


def test_a_sweep_takes_strengths_and_numbers() -> None:
    model = loaded("gpt2", KINDS[0])
    vectors = sl.mean_difference(model, ["a wedding"], ["a car"], layers="all")
    few = {"n": 2, "max_new_tokens": 3, "metrics": [sl.metrics.length()]}
    swept = sl.sweep(model, vectors, PROMPTS, coeffs=[sl.norm_share(0.5), 1.0], **few)
    solved = sl.solve_strengths(model, vectors, PROMPTS, sl.norm_share(0.5))
    for role in ("steered", "random"):
        rows = swept.summary[swept.summary["role"] == role]
        assert rows["strength"].tolist() == ["norm_share(0.5)"] * N_LAYERS + ["coefficient 1"] * N_LAYERS
        assert rows["coeff"].tolist() == pytest.approx([*solved["coeff"], *[1.0] * N_LAYERS])
    lines = {trace.name for trace in swept.plot().data if trace.name}
    assert {"norm_share(0.5)", "1"} <= lines


def test_a_sweep_warns_of_a_strength_that_is_not_reached() -> None:
    model = loaded("gpt2", KINDS[0])
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    with pytest.warns(UserWarning, match=r"iso_kl\(100\) of layer 1 is not reached: saturates"):
        sl.sweep(model, vector, PROMPTS, coeffs=sl.iso_kl(100.0), n=1, max_new_tokens=1, metrics=[sl.metrics.length()])


def test_next_token_kl_of_generated_tokens_is_refused() -> None:
    model = loaded("gpt2", KINDS[0])
    vector = sl.mean_difference(model, ["a wedding"], ["a car"], layer=1)
    with pytest.raises(sl.SteerlensError, match="iso_kl is the KL of the next token"):
        sl.solve_strengths(model, vector, PROMPTS, sl.iso_kl(0.1), placement="generated")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = sl.solve_strengths(model, vector, PROMPTS, sl.norm_share(0.1), placement="generated").to_dict(
            "records"
        )
    assert row["found"] and row["coeff"] > 0
