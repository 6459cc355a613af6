"""The gallery: completions are generate's, the best of three follows the stated rule, layers are scaled by depth."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.experiments.gallery import completing
from steerlens.experiments.gallery.examples import EXAMPLES, Addition, Example
from steerlens.experiments.gallery.experiment import QUICK, gallery
from tests.conftest import plain_model
from tests.reference import block_inputs

NAMES = ["love", "love without minus hate", "love and weddings at once"]
COMMON = Example(
    "–", "common words", "I went up to my friend", (Addition("Love you", "Hate", 30, 2),), ("the", "a", "and", "he"),
    "common words", "what if",
)  # fmt: skip
SMALL: dict[str, Any] = {"examples": [*NAMES, COMMON], "n": 5, "max_new_tokens": 6, "temperature": 1.0, "top_p": 0.9}


@pytest.fixture(scope="module")
def result(any_model):
    return gallery(any_model, **SMALL)


def test_every_example_has_three_conditions(result) -> None:
    counts = result.frame.groupby(["example", "role"]).size()
    assert (counts == 5).all() and len(counts) == 4 * 3
    assert not result.not_run


def test_completions_are_those_of_generate(result, any_model) -> None:
    layers = {"love": [0], "common words": [2], "love and weddings at once": [0, 1]}  # of 3, where the post has 48
    for name, here in layers.items():
        rows = result.frame[result.frame["example"] == name]
        assert rows["layers"].unique().tolist() == [", ".join(map(str, here))]
        example = COMMON if name == COMMON.name else next(one for one in EXAMPLES if one.name == name)
        vectors = tuple(
            one.coeff * sl.actadd(any_model, one.positive, one.negative, layer=layer)
            for one, layer in zip(example.additions, here, strict=True)
        )
        alone = sl.generate(
            any_model, example.prompt, [None, vectors], n=5, max_new_tokens=6, temperature=1.0, top_p=0.9, seed=0
        )
        for role, condition in (("unsteered", 0), ("steered", 1)):
            expected = alone.loc[alone["condition"] == condition, "completion"].tolist()
            assert rows.loc[rows["role"] == role, "completion"].tolist() == expected


def test_an_addition_without_a_negative_is_the_activations_themselves(any_model) -> None:
    vector = completing.addition_vector(any_model, Addition("Love", None, 6, 10), 1)
    ids = any_model.to_tokens("Love")[0].tolist()
    expected = 10 * block_inputs(plain_model("gpt2"), ids)[1]
    expected -= expected.mean(-1, keepdim=True)  # this model's residual stream is centred
    assert torch.allclose(vector.values, expected, atol=1e-3, rtol=1e-4) and vector.values[0].abs().max() > 0


def test_coefficients_are_scaled_together(any_model) -> None:
    settings = {**SMALL, "examples": ["love and weddings at once"], "control": None}
    scaled = gallery(any_model, **settings, coeff_scale=0.0).frame
    both = [scaled.loc[scaled["role"] == role, "completion"].tolist() for role in ("unsteered", "steered")]
    assert both[0] == both[1]
    assert gallery(any_model, **settings, coeff_scale=0.5).frame["coeff"].unique().tolist() == ["2.5, 2.5"]


def test_scores_count_the_words(demo) -> None:
    result = gallery(demo, examples=[COMMON], n=8, max_new_tokens=20)
    counted = [
        sum(re.sub(r"[\W_]", " ", text.lower()).split().count(word) for word in COMMON.words)
        for text in result.frame["completion"]
    ]
    assert result.frame["score"].tolist() == counted and len(set(counted)) > 2
    summary = result.summary().set_index("role")
    for role, group in result.frame.groupby("role"):
        assert summary.loc[role, "share"] == (group["score"] > 0).mean()


@pytest.mark.parametrize("best_of", [1, 3, 50])
def test_the_best_has_most_words_of_the_first_so_many_and_is_the_earliest_of_equals(demo, best_of: int) -> None:
    result = gallery(demo, examples=[COMMON, "love"], n=6, max_new_tokens=12, best_of=best_of)
    for _, group in result.frame.groupby(["example", "role"]):
        first = group.sort_values("sample").head(best_of)
        wanted = max(first.itertuples(), key=lambda row: (row.score, -row.sample)).sample
        assert group.loc[group["best"], "sample"].tolist() == [wanted]


def test_an_example_that_does_not_fit_is_told(any_model) -> None:
    long = Example(
        "–", "long", "Hi", (Addition("one two three four five", " ", 0, 1),), ("x",), "x", "what if",
    )  # fmt: skip
    result = gallery(any_model, **{**SMALL, "examples": ["love", long]})
    assert set(result.not_run) == {"long"} and "but the prompt has" in result.not_run["long"]
    assert set(result.frame["example"]) == {"love"}
    with pytest.raises(sl.SteerlensError, match="no example can be run"):
        gallery(any_model, **{**SMALL, "examples": [long]})


def test_a_stopped_run_goes_on(any_model, result, tmp_path: Path, monkeypatch) -> None:
    calls: list[str] = []
    real = completing.generate

    def stopping(model: Any, prompt: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(prompt)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(model, prompt, *args, **kwargs)

    monkeypatch.setattr(completing, "generate", stopping)
    store = tmp_path / "parts.sqlite"
    with pytest.raises(KeyboardInterrupt):
        gallery(any_model, **SMALL, store=store)
    resumed = gallery(any_model, **SMALL, store=store)
    assert len(calls) == 3 + 2
    assert resumed.frame.equals(result.frame)
    gallery(any_model, **{**SMALL, "best_of": 2}, store=store)
    assert len(calls) == 5  # picking needs no new completions


def test_the_examples_are_those_of_the_post() -> None:
    by_name = {one.name: one for one in EXAMPLES}
    assert len(by_name) == len(EXAMPLES) == 18
    assert by_name["love"].additions == (Addition("Love", "Hate", 6, 5),)
    assert by_name["anger"].additions == (Addition("Anger", "Calm", 20, 10),)
    assert by_name["dragons in Berkeley"].additions[0].layer == 15
    assert {one.verdict for one in EXAMPLES} == {"works", "fails", "what if"}
    assert all(0 <= part.layer < 48 for one in EXAMPLES for part in one.additions)
    assert (
        inspect.signature(gallery).parameters["top_p"].default == 0.3
        and inspect.signature(gallery).parameters["max_new_tokens"].default == 50
        and inspect.signature(gallery).parameters["best_of"].default == 3
    )
    assert set(QUICK) <= set(inspect.signature(gallery).parameters)


def test_page_shows_the_best_and_all(result, tmp_path: Path) -> None:
    page = result.save(tmp_path / "out").read_text(encoding="utf-8")
    assert page.count("<details>") == 4 and "All 5 of each" in page and "Best of the first 3" in page
    assert "layer 0 (the post: 6 of 48)" in page and "worked in the post" in page
    kept = json.loads((tmp_path / "out" / "gallery.json").read_text(encoding="utf-8"))["settings"]
    assert kept["seed"] == 0 and kept["examples"]["love"]["words"] and len(kept["model fingerprint"]) == 32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"examples": ["lve"]}, "no example is called 'lve'; there are love"),
        ({"examples": []}, "examples is empty"),
        ({"examples": ["love", "love"]}, "two examples have one name"),
        ({"n": 0}, "n is 0; needs"),
        ({"sampling": 7}, "give a Sampling"),
        ({"max_tokens": 7}, "no option 'max_tokens'; did you mean max_new_tokens"),
        ({"best_of": 0}, "best_of must be"),
        ({"control": "placebo"}, "control='placebo'"),
        ({"scale_layers": False}, "layer 6 is out of range"),
    ],
)
def test_bad_input_is_one_clear_line(any_model, arguments, words) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        gallery(any_model, **{**SMALL, **arguments})
    assert "\n" not in str(caught.value)
