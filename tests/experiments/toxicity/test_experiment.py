"""The toxicity experiment: numbers that can be counted again, groups of prompts, failures that lose no text."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest

from steerlens.errors import SteerlensError
from steerlens.experiments.shared import continuations
from steerlens.experiments.shared.method_summary import METHODS
from steerlens.experiments.shared.prompts import SHIPPED as FOLDER
from steerlens.experiments.toxicity.experiment import QUICK, SHIPPED, toxicity
from tests.conftest import DATA

PROMPTS = pd.DataFrame(
    {
        "prompt": [f"{word} {end}" for end in ("man said that you", "day was so") for word in "The A My One".split()],
        "subset": ["toxic"] * 4 + ["nontoxic"] * 4,
    }
)
SMALL = {
    "prompts": PROMPTS,
    "layers": (0, 1),
    "coeffs": (3.0,),
    "validation": 2,
    "max_new_tokens": 5,
    "random_draws": 3,
}


def _vowels(texts):
    return [(sum(letter in "aeiou" for letter in text.lower()) + 0.5) / (len(text) + 1.5) for text in texts]


def test_every_number_can_be_counted_again(any_model):
    found = toxicity(any_model, **SMALL, scorer=_vowels)
    assert list(found.frame["prompts"].unique()) == ["all", "nontoxic", "toxic"]
    subset_of = dict(zip(PROMPTS["prompt"], PROMPTS["subset"], strict=True))
    for group in ("all", "nontoxic", "toxic"):
        for method in METHODS:
            own = found.completions[found.completions["method"] == method]
            own = own[[group in ("all", subset_of[prompt]) for prompt in own["prompt"]]]
            scores = np.array(_vowels(own["completion"]))
            mine = found.frame[(found.frame["prompts"] == group) & (found.frame["method"] == method)]
            mine = mine.set_index("metric")
            assert mine.loc["toxicity", "mean"] == pytest.approx(scores.mean())
            assert mine.loc["share toxic", "mean"] == (scores >= 0.5).mean()
            assert mine.loc["disfluency", "mean"] == pytest.approx(np.exp(own["nats"]).mean())
            assert (mine["n"] == len(own)).all()


def test_the_least_toxic_condition_is_chosen(any_model):
    found = toxicity(any_model, **SMALL, scorer=_vowels, disfluency_limit=None)
    steered = found.tuning[found.tuning["role"] == "steered"]
    assert len(steered) == 2
    assert steered.loc[steered["chosen"], "effect"].iloc[0] == steered["effect"].max()
    assert found.settings["prompts reported"] + found.settings["prompts to choose layer and coefficient on"] == 8


def test_a_scorer_that_fails_loses_no_text(any_model, tmp_path, monkeypatch):
    def breaks(texts):
        raise RuntimeError("the service is down")

    one = {**SMALL, "layers": (1,), "store": tmp_path / "runs.sqlite"}  # nothing to choose: one phase
    with pytest.raises(SteerlensError, match="the service is down"):
        toxicity(any_model, **one, scorer=breaks)

    def never(*args, **kwargs):
        raise AssertionError("generated again")

    monkeypatch.setattr(continuations, "sample", never)
    found = toxicity(any_model, **one, scorer=_vowels)
    assert len(found.completions) == 4 * 8


def test_the_phrase_and_the_pair(any_model):
    found = toxicity(any_model, **(SMALL | {"layers": (1,)}), pair=("kind", "rude"), phrase="Be kind:", scorer=_vowels)
    assert found.settings["phrase of prompting"] == "Be kind: " and found.settings["pair"] == "'kind' − 'rude'"


def test_the_page_and_the_settings(any_model, tmp_path):
    found = toxicity(any_model, **SMALL, scorer=_vowels)
    page = found.save(tmp_path).read_text(encoding="utf-8")
    assert "mean toxicity" in page and "nontoxic" in page
    facts = json.loads((tmp_path / "toxicity.json").read_text(encoding="utf-8"))
    assert facts["settings"]["seed"] == 0 and facts["settings"]["model fingerprint"]
    assert len(found.figures()) == 2 and "hit" in found.completions


def test_the_shipped_prompts(demo):
    rows = [json.loads(line) for line in (FOLDER / SHIPPED).read_text(encoding="utf-8").splitlines()]
    assert [row["subset"] for row in rows] == ["toxic", "nontoxic"] * 60
    assert "Apache" in (FOLDER / SHIPPED).with_suffix(".md").read_text(encoding="utf-8")
    found = toxicity(demo, n_prompts=6, layers=(4,), coeffs=(2.0,), max_new_tokens=6, random_draws=1, progress=False)
    assert found.settings["scorer"] == "shipped toxicity scorer" and len(found.completions) == 24
    again = toxicity(demo, n_prompts=6, layers=(4,), coeffs=(2.0,), max_new_tokens=6, random_draws=1, progress=False)
    pd.testing.assert_frame_equal(found.frame, again.frame)


def test_quick_names_arguments():
    assert set(QUICK) <= set(inspect.signature(toxicity).parameters)


@pytest.mark.skipif(
    not (DATA / "toxicity" / "realtoxicityprompts_subset.parquet").is_file(), reason="needs STEERLENS_DATA"
)
def test_prompts_from_a_file(demo):
    path = DATA / "toxicity" / "realtoxicityprompts_subset.parquet"
    found = toxicity(
        demo, prompts=path, n_prompts=10, layers=(4,), coeffs=(2.0,), max_new_tokens=4, random_draws=1, progress=False
    )
    assert set(found.completions["prompt"]) <= {" ".join(prompt.split()) for prompt in pd.read_parquet(path)["prompt"]}
    assert set(found.frame["prompts"]) == {"all", "toxic", "nontoxic"}


def test_the_hub_s_nested_prompts_and_plain_texts(any_model):
    small = SMALL | {"layers": (1,), "scorer": _vowels}
    nested = PROMPTS.assign(prompt=[{"text": text, "toxicity": 0.1} for text in PROMPTS["prompt"]])
    one = toxicity(any_model, **(small | {"prompts": nested})).frame
    pd.testing.assert_frame_equal(one, toxicity(any_model, **small).frame)
    plain = toxicity(any_model, **(small | {"prompts": PROMPTS["prompt"].tolist()})).frame
    assert set(plain["prompts"]) == {"all"}


def test_bad_input_is_one_line(any_model, tmp_path):
    for wrong, said in (
        ({"prompts": tmp_path / "missing.parquet"}, "there is no file"),
        ({"prompts": pd.DataFrame({"words": ["x"]})}, "has no column 'prompt' or 'text'"),
        ({"prompts": []}, "is empty"),
        ({"coeffs": []}, "coeffs is empty"),
        ({"scorer": lambda texts: [2.0] * len(texts)}, "between 0 and 1"),
    ):
        with pytest.raises(SteerlensError, match=said) as error:
            toxicity(any_model, **(SMALL | {"scorer": _vowels} | wrong))
        assert "\n" not in str(error.value)
