"""Controls of a sweep: each is there, beside its own condition, and what cannot be made is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import steerlens as sl
from tests.reference import N_LAYERS

PROMPTS = ["I went up to my friend and said", "The weather today is"]
PAIR = sl.PromptPair(" love", " hate")
METRICS = [sl.metrics.words("the", "a", name="articles")]
SET = sl.ContrastSet.of([(f"I love {one}", f"I hate {one}") for one in ("tea", "rain", "dogs", "snow", "wine")])
FEW = {"n": 2, "max_new_tokens": 4, "metrics": METRICS, "coeffs": 3.0}


def vectors(result: sl.Sweep, role: str) -> dict[int, torch.Tensor]:
    """The values that a role's conditions inject, by layer."""
    found = {}
    for condition, one in zip(result.plan.conditions, result.plan.roles, strict=True):
        if one == role:
            found[condition.layer] = condition.injections[0].vector.values
    return found


def test_the_standard_controls_stand_beside_every_condition(any_model) -> None:
    result = sl.sweep(any_model, SET, PROMPTS, controls=["random", "shuffled", "negated", sl.Prompting("Love!")], **FEW)
    counts = result.frame.groupby("role", sort=False)["condition"].nunique().to_dict()
    assert counts == {
        "unsteered": 1,
        "steered": N_LAYERS,
        "random": N_LAYERS,
        "shuffled": N_LAYERS,
        "negated": N_LAYERS,
        "prompting": 1,
    }
    steered = vectors(result, "steered")
    means = sl.mean_difference(any_model, SET, layers="all")
    for layer, values in steered.items():
        assert torch.equal(values, 3.0 * means[layer].values)
        assert torch.equal(vectors(result, "negated")[layer], -values)
        for role in ("random", "shuffled"):
            other = vectors(result, role)[layer]
            assert torch.allclose(other.norm(dim=-1), values.norm(dim=-1), rtol=1e-4)
            assert torch.nn.functional.cosine_similarity(other, values).abs().max() < 0.95
    assert result.settings["controls left out"] == []
    assert result.frame.query("role == 'negated'")["coeff"].eq(-3.0).all()


def test_a_shuffled_contrast_is_the_mean_of_the_texts_with_exchanged_labels(any_model) -> None:
    result = sl.sweep(any_model, SET, PROMPTS[0], layers=[1], controls=["shuffled"], **FEW)
    shuffled = SET.shuffled(seed=0)
    assert sorted(shuffled.texts) == sorted(SET.texts)
    moved = sum(mine != theirs for mine, theirs in zip(shuffled.positive, SET.positive, strict=True))
    assert moved == len(SET) // 2
    expected = sl.mean_difference(any_model, shuffled, layer=1).values
    expected = expected * vectors(result, "steered")[1].norm() / expected.norm()
    assert torch.allclose(vectors(result, "shuffled")[1], expected, rtol=1e-4, atol=1e-6)


def test_lists_of_texts_and_several_pairs_can_be_shuffled_too(any_model) -> None:
    lists = sl.mean_difference(any_model, SET.positive, SET.negative, layers=[0, 2], token=slice(1, None))
    result = sl.sweep(any_model, lists, PROMPTS[0], controls="shuffled", **FEW)
    assert set(vectors(result, "shuffled")) == {0, 2}
    pairs = [sl.PromptPair(" love", " hate"), sl.PromptPair(" good", " bad")]
    result = sl.sweep(any_model, pairs, PROMPTS[0], controls="shuffled", layers=[1], **FEW)
    one, other = (sl.actadd(any_model, pair, layer=1).values for pair in pairs)
    expected, found = one - other, vectors(result, "shuffled")[1]
    assert torch.nn.functional.cosine_similarity(found[1:], expected[1:]).abs().min() > 0.999


def test_what_cannot_be_made_is_left_out_and_named(any_model, tmp_path: Path) -> None:
    result = sl.sweep(any_model, PAIR, PROMPTS[0], layers=[1], controls="standard", **FEW)
    assert set(result.frame["role"]) == {"unsteered", "steered", "random", "negated", "prompting"}
    (why,) = result.settings["controls left out"]
    assert "one pair has nothing to shuffle" in why
    page = result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "one pair has nothing to shuffle" in page and "negated vector" in page and "prompting" in page
    of_a_set = sl.mean_difference(any_model, SET, layers=[1])
    result = sl.sweep(any_model, of_a_set, PROMPTS[0], controls="standard", **FEW)
    assert [why.split(":")[0] for why in result.settings["controls left out"]] == [
        "no shuffled contrast",
        "no prompting",
    ]


def test_a_prompted_row_is_the_plain_completion_of_the_longer_prompt(any_model) -> None:
    """Greedy, the words in the prompt are all that differs; and the rows stand under the prompt as it was given."""
    result = sl.sweep(any_model, PAIR, PROMPTS, layers=[1], controls="prompting", temperature=0, **FEW)
    rows = result.frame.query("role == 'prompting'")
    plain = sl.generate(any_model, [f" love {one}" for one in PROMPTS], n=2, max_new_tokens=4, temperature=0)
    assert rows["completion"].tolist() == plain["completion"].tolist()
    assert rows["prompt"].drop_duplicates().tolist() == PROMPTS
    scored = sl.score(any_model, [f"{one}{text}" for one, text in zip(rows["prompt"], rows["completion"], strict=True)])
    for (number, own), row in zip(scored.groupby("text_index"), rows.itertuples(), strict=True):
        last = own["logprob"].tail(row.n_tokens)
        assert row.surprise == pytest.approx(-last.mean(), abs=1e-4), number


def test_a_store_keeps_every_control_and_resumes(any_model, tmp_path: Path, monkeypatch) -> None:
    how = {**FEW, "layers": [1, 2], "controls": ["random", "negated", "prompting"], "batch_size": 8}
    whole = sl.sweep(any_model, PAIR, PROMPTS, store=tmp_path / "a.sqlite", **how)
    assert whole.frame["completion"].tolist() == sl.sweep(any_model, PAIR, PROMPTS, **how).frame["completion"].tolist()
    monkeypatch.setattr("steerlens.runs.parts.generate", None)  # nothing is left to compute
    again = sl.sweep(any_model, PAIR, PROMPTS, store=tmp_path / "a.sqlite", **how)
    assert again.frame.equals(whole.frame)
    with pytest.raises(TypeError):  # other words are another run
        sl.sweep(any_model, PAIR, PROMPTS, store=tmp_path / "a.sqlite", **{**how, "controls": sl.Prompting("Tea")})


def test_figures_take_every_role(any_model) -> None:
    result = sl.sweep(any_model, SET, PROMPTS, controls=["random", "shuffled", "negated", sl.Prompting("Love!")], **FEW)
    names = {trace.name for trace in result.plot().data}
    assert {"3", "3, random vector", "3, shuffled contrast", "3, negated", "prompting", "unsteered"} <= names
    from steerlens.figures import effect_against_damage, layer_coefficient_heatmap

    table = result.effects()
    drawn = effect_against_damage(table, damage="surprise")
    assert {"3", "3, random vector", "3, shuffled contrast", "prompting", "unsteered"} <= {
        one.name for one in drawn.data
    }
    assert layer_coefficient_heatmap(result.summary, role="shuffled").data[0].z.shape[1] == N_LAYERS


def test_the_older_name_of_the_argument_works(any_model) -> None:
    how = {"layers": [1], **FEW}
    assert set(sl.sweep(any_model, PAIR, PROMPTS, control="random", **how).frame["role"]) == {
        "unsteered",
        "steered",
        "random",
    }
    assert set(sl.sweep(any_model, PAIR, PROMPTS, control=None, **how).frame["role"]) == {"unsteered", "steered"}
