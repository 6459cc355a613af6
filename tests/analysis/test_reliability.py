"""Reliability against plain loops over prompts and coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.steering.prompts import read_prompt
from steerlens.steering.tokens import tokenizer_of

QUESTIONS = (
    "Is the sky blue? The answer is",
    "Do dogs bark? I think",
    "Is snow hot? She said",
    "Are you well? He said",
)
SET = sl.ContrastSet.of([(f"{one} yes", f"{one} no") for one in QUESTIONS], name="answers")
COEFFS = [-2.0, 1.0, 3.0]


def test_logit_differences_are_those_of_single_runs(gpt2) -> None:
    vector = sl.mean_difference(gpt2, SET, layer=1)
    found = sl.reliability(gpt2, vector, SET, coeffs=COEFFS)
    assert found.frame["coeff"].drop_duplicates().tolist() == [-2.0, 0.0, 1.0, 3.0]
    yes, no = (tokenizer_of(gpt2)(one)["input_ids"][0] for one in (" yes", " no"))
    for row in found.frame.itertuples():
        assert row.prompt == QUESTIONS[row.number]
        tokens = torch.tensor([read_prompt(gpt2, QUESTIONS[row.number]).ids])
        with sl.steer(gpt2, row.coeff * vector), torch.no_grad():
            logits = gpt2(tokens)[0, -1]
        assert row.value == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)
    slopes = found.prompts.set_index("number")["slope"]
    for number, mine in found.frame.groupby("number"):
        assert slopes[number] == pytest.approx(np.polyfit(mine["coeff"], mine["value"], 1)[0], abs=1e-5)


def test_targets_of_plain_prompts_are_the_same_as_a_set_of_them(any_model) -> None:
    vector = sl.mean_difference(any_model, SET, layer=1)
    first = sl.reliability(any_model, vector, SET, coeffs=COEFFS).frame
    second = sl.reliability(any_model, vector, list(QUESTIONS), targets=(" yes", " no"), coeffs=COEFFS).frame
    assert np.allclose(first["value"], second["value"], atol=1e-5)


def test_paraphrases_and_held_out_prompts_are_told_apart(any_model) -> None:
    vector = 2 * sl.actadd(any_model, " love", " hate", layer=1).on("last").at(-1)
    others = [sl.PromptPair(" like", " dislike"), sl.actadd(any_model, " good", " bad", layer=1)]
    how = {"targets": (" yes", " no"), "coeffs": COEFFS, "placement": "front"}
    found = sl.reliability(
        any_model, vector, list(QUESTIONS[:2]), held_out=list(QUESTIONS[2:]), paraphrases=others, **how
    )
    names = found.summary["direction"].drop_duplicates().tolist()
    assert len(names) == 3 and names[0] == "as given" and "like" in names[1]
    assert sorted(found.summary["split"]) == ["held out"] * 3 + ["in distribution"] * 3
    like = 2 * sl.actadd(any_model, " like", " dislike", layer=1)
    alone = sl.reliability(any_model, like, list(QUESTIONS[:2]), **how).frame
    mine = found.frame[(found.frame["direction"] == names[1]) & (found.frame["split"] == "in distribution")]
    assert np.allclose(mine["value"], alone["value"], atol=1e-5)
    assert found.paraphrases["directions"].eq(3).all() and len(found.paraphrases) == 4
    assert not found.notes and "held out" in repr(found)


def test_a_sampled_metric_is_that_of_generate(any_model) -> None:
    vector, metric = sl.mean_difference(any_model, SET, layer=1), sl.metrics.length("characters", better="lower")
    found = sl.reliability(any_model, vector, list(QUESTIONS[:2]), metric=metric, coeffs=[2], n=3, max_new_tokens=4)
    for coeff in (0.0, 2.0):
        plain = sl.generate(any_model, list(QUESTIONS[:2]), coeff * vector, n=3, max_new_tokens=4)
        mine = found.frame[found.frame["coeff"] == coeff]
        assert mine["value"].tolist() == metric(plain["completion"]).tolist()
        assert mine["number"].tolist() == [0, 0, 0, 1, 1, 1]
    slopes = found.prompts.set_index("number")["slope"]
    assert found.prompts["wrong"].tolist() == (slopes > 0).tolist()  # shorter is better


def test_every_prompt_is_in_the_figure(any_model) -> None:
    vector = sl.mean_difference(any_model, SET, layer=1)
    found = sl.reliability(any_model, vector, SET, coeffs=COEFFS, held_out=sl.ContrastSet.of([("a b", "a c")]))
    figure = found.plot()
    assert sum(len(one.x) for one in figure.data if one.mode == "markers") == 5
    assert f"{found.prompts['wrong'].sum()} of 5 steered the wrong way" in figure.layout.title.subtitle.text


def test_the_page_says_how_many_go_the_wrong_way(any_model, tmp_path) -> None:
    vector = sl.mean_difference(any_model, SET, layer=1)
    other = sl.actadd(any_model, " good", " bad", layer=1).at(-1).on("last")
    found = sl.reliability(any_model, vector, SET, held_out=SET, coeffs=COEFFS, paraphrases=[other])
    page = found.report(tmp_path / "page.html", command="steerlens reliability answers.json").read_text("utf-8")
    wrong = found.summary.query("direction == 'as given' and split == 'held out'")["wrong"].iloc[0]
    assert f"{wrong:.0%} of 4" in page and "wrong way, held out" in page
    assert "steerlens reliability answers.json" in page and "over paraphrases" in page


def test_what_cannot_be_said_is_said(any_model) -> None:
    vector = sl.mean_difference(any_model, SET, layer=1)
    found = sl.reliability(any_model, vector, "Is the sky", targets=(" a", " b"), coeffs=1)
    assert any("one prompt" in note for note in found.notes) and any("no held-out" in note for note in found.notes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"coeffs": [0]}, "other than 0"),
        ({"prompts": ["Is"]}, "say what to measure"),
        ({"prompts": ["Is"], "targets": (" yes",)}, "two texts"),
        ({"prompts": ["Is"], "targets": (" yes", " yes")}, "same token"),
        ({"targets": (" yes", " no")}, "targets of its own|its own targets"),
        ({"metric": sl.metrics.length()}, "of completions"),
        ({"prompts": sl.ContrastSet.labelled(["a", "b"], [1, 0])}, "no pairs"),
        ({"prompts": sl.ContrastSet.of([("same", "same")])}, "do not differ"),
        ({"paraphrases": ["love"]}, "a paraphrase is"),
        ({"vector": None}, "expected a SteeringVector"),
        ({"prompts": ["Is"], "metric": sl.metrics.Metric("x", "mean", lambda texts: 1 / 0)}, "ZeroDivisionError"),
    ],
)
def test_bad_input_is_one_line(any_model, arguments, words) -> None:
    vector = sl.mean_difference(any_model, SET, layer=1)
    with pytest.raises(sl.SteerlensError, match=words):
        sl.reliability(any_model, **{"vector": vector, "prompts": SET, "coeffs": [1.0], **arguments})
