"""The sentiment experiment: what it reports can be counted again; failures lose no text; bad input is one line."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest

from steerlens.errors import SteerlensError
from steerlens.experiments.sentiment.experiment import DIRECTIONS, QUICK, SHIPPED, sentiment
from steerlens.experiments.shared import continuations
from steerlens.experiments.shared.method_summary import METHODS
from steerlens.experiments.shared.prompts import SHIPPED as FOLDER
from steerlens.experiments.shared.prompts import openings
from tests.conftest import DATA

PROMPTS = [
    *((f"{word} film was a joy and", "positive") for word in "The This That My Our".split()),
    *((f"{word} film was a bore and", "negative") for word in "The This That My Our His".split()),
]
SMALL = {
    "prompts": PROMPTS,
    "layers": (1,),
    "coeffs": (1.0, 4.0),
    "validation": 2,
    "max_new_tokens": 5,
    "random_draws": 2,
}


def _vowels(texts):
    """A scorer of no sense and no ties: the share of letters that are vowels."""
    return [(sum(letter in "aeiou" for letter in text.lower()) + 0.5) / (len(text) + 1.5) for text in texts]


def _never(*args, **kwargs):
    raise AssertionError("generated again")


def test_every_number_can_be_counted_again(any_model):
    found = sentiment(any_model, **SMALL, scorer=_vowels)
    assert list(found.frame["direction"].unique()) == list(DIRECTIONS)
    assert found.completions.groupby(["direction", "method"]).size().to_dict() == {
        (direction, method): number for direction, number in zip(DIRECTIONS, (4, 3), strict=True) for method in METHODS
    }
    for (direction, method), rows in found.completions.groupby(["direction", "method"]):
        kind = "bore" if direction == "negative to positive" else "joy"
        assert all(kind in prompt for prompt in rows["prompt"])
        scores = np.array(_vowels(rows["completion"]))
        hits = scores > 0.5 if direction == "negative to positive" else scores < 0.5
        one = found.frame[(found.frame["direction"] == direction) & (found.frame["method"] == method)]
        one = one.set_index("metric")["mean"]
        assert one["success"] == hits.mean()
        assert one["disfluency"] == pytest.approx(np.exp(rows["nats"]).mean())
        assert one["relevance"] == pytest.approx(rows["relevance"].mean())


def test_each_direction_steers_with_its_own_pair(any_model, monkeypatch):
    seen = []
    real = continuations.sample
    monkeypatch.setattr(
        continuations, "sample", lambda model, ids, conditions, **rest: seen.extend(conditions)
        or real(model, ids, conditions, **rest)
    )  # fmt: skip
    found = sentiment(any_model, **(SMALL | {"coeffs": (4.0,)}), pair=("good", "bad"), scorer=_vowels)
    pairs = [one.injections[0].vector.source for one in seen if one.injections]
    pairs = [(one["positive"], one["negative"]) for one in pairs if one["method"] == "actadd"]
    assert pairs == [("good", "bad"), ("bad", "good")]
    assert found.settings["phrases of prompting"] == ["good ", "bad "]
    assert found.tuning.empty


def test_a_scorer_that_fails_loses_no_text(any_model, tmp_path, monkeypatch):
    calls = []

    def breaks(texts):
        calls.append(len(texts))
        if len(calls) == 2:
            raise RuntimeError("the service is down")
        return _vowels(texts)

    store = tmp_path / "runs.sqlite"
    with pytest.raises(SteerlensError, match=r"'.*breaks' failed \(RuntimeError: the service is down\)"):
        sentiment(any_model, **SMALL, scorer=breaks, store=store)
    generated = []
    real = continuations.sample

    def counted(model, ids, conditions, **rest):
        generated.extend(conditions)
        return real(model, ids, conditions, **rest)

    monkeypatch.setattr(continuations, "sample", counted)
    again = sentiment(any_model, **SMALL, scorer=_vowels, store=store)
    plain = sentiment(any_model, **SMALL, scorer=_vowels)
    # Of the first direction the validation texts were there already: unsteered and two coefficients.
    assert len(generated) == 2 * (3 + 3 + 2) - 3 + 2 * (3 + 3 + 2)
    pd.testing.assert_frame_equal(again.frame, plain.frame)
    monkeypatch.setattr(continuations, "sample", _never)
    other = sentiment(any_model, **SMALL, scorer=lambda texts: [0.75] * len(texts), store=store)
    shares = other.frame[other.frame["metric"] == "success"].groupby("direction")["mean"].unique()
    assert [list(shares[direction]) for direction in DIRECTIONS] == [[1.0], [0.0]]


def test_a_run_that_was_stopped_goes_on_and_a_finished_one_is_read(any_model, tmp_path, monkeypatch):
    real, store, calls = continuations.sample, tmp_path / "runs.sqlite", []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(continuations, "sample", stops)
    with pytest.raises(KeyboardInterrupt):
        sentiment(any_model, **SMALL, chunk=2, scorer=_vowels, store=store)
    before = len(calls) - 1
    resumed = sentiment(any_model, **SMALL, chunk=2, scorer=_vowels, store=store)
    after = len(calls) - 1 - before
    calls[:] = [0] * 100
    plain = sentiment(any_model, **SMALL, chunk=2, scorer=_vowels)
    assert before == 4 and before + after == len(calls) - 100
    pd.testing.assert_frame_equal(resumed.completions, plain.completions)
    monkeypatch.setattr(continuations, "sample", _never)
    read = sentiment(any_model, **SMALL, chunk=2, scorer=_vowels, store=store)
    pd.testing.assert_frame_equal(read.frame, plain.frame)


def test_the_page_the_settings_and_the_files(any_model, tmp_path):
    found = sentiment(any_model, **SMALL, scorer=_vowels)
    for needed in ("seed", "model fingerprint", "steerlens", "scorer", "pair", "chosen", "top_p"):
        assert needed in found.settings
    assert found.settings["prompts reported"] == dict(zip(DIRECTIONS, (4, 3), strict=True))
    page = found.save(tmp_path, command="steerlens reproduce sentiment").read_text(encoding="utf-8")
    assert "negative to positive" in page and "steerlens reproduce sentiment" in page
    facts = json.loads((tmp_path / "sentiment.json").read_text(encoding="utf-8"))
    assert len(facts["headlines"]) == 4
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "sentiment.csv").drop(columns=["layer"]), found.frame.drop(columns=["layer"])
    )
    assert found.plot() is not None and len(found.figures()) == 3


def test_the_shipped_openings(demo):
    rows = [json.loads(line) for line in (FOLDER / SHIPPED).read_text(encoding="utf-8").splitlines()]
    assert [row["label"] for row in rows] == ["positive", "negative"] * 60
    lengths = [len(demo.tokenizer(row["text"])["input_ids"]) for row in rows]
    assert min(lengths) >= 10 and max(lengths) <= 40
    assert len({row["text"] for row in rows}) == 120
    found = sentiment(demo, n_prompts=8, layers=(4,), coeffs=(4.0,), max_new_tokens=8, random_draws=1, progress=False)
    assert found.settings["prompts reported"] == dict.fromkeys(DIRECTIONS, 4)
    assert found.settings["scorer"] == "shipped sentiment scorer"


def test_quick_names_arguments():
    assert set(QUICK) <= set(inspect.signature(sentiment).parameters)


def test_openings_are_the_first_tokens(demo):
    text = "A film<br /><br />about a cat that goes to sea, and what it finds there."
    (first,) = openings(demo, [text], 6)
    assert "A film about a cat that goes to sea".startswith(first) and first.startswith("A film about")
    assert openings(demo, [text, "short"], None)[1] == "short"
    assert "\ufffd" not in openings(demo, ["日本の映画はとても良い" * 3], 4)[0]


@pytest.mark.skipif(not (DATA / "imdb" / "test.parquet").is_file(), reason="needs imdb/test.parquet (STEERLENS_DATA)")
def test_reviews_from_a_file(demo):
    found = sentiment(
        demo, prompts=DATA / "imdb" / "test.parquet", n_prompts=6, layers=(4,), coeffs=(2.0,), max_new_tokens=4,
        random_draws=1, progress=False,
    )  # fmt: skip
    assert found.settings["prompts reported"] == dict.fromkeys(DIRECTIONS, 3)
    # A token may be cut differently where the opening ends, never by more than one or two.
    assert all(len(demo.tokenizer(prompt)["input_ids"]) <= 34 for prompt in found.completions["prompt"])


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("missing.parquet", r"there is no file missing\.parquet; download"),
        ("no/such-set", r"cannot load the data set 'no/such-set'|is not installed"),
        ([], "is empty; give at least one prompt"),
        ([("fine", "positive")], "no prompt has a negative label"),
        ([("fine", "positive"), ("dull", "unsup")], "the label 'unsup' is neither positive nor negative"),
        (["only", "texts"], "has no column 'label' or 'sentiment'"),
        ([("", "positive"), ("dull", "negative")], "1 of the 2 prompts of the list of prompts are empty"),
        (7, "is no source of prompts"),
    ],
)
def test_bad_prompts_are_one_line(any_model, prompts, said):
    with pytest.raises(SteerlensError, match=said) as error:
        sentiment(any_model, prompts=prompts)
    assert "\n" not in str(error.value)


def test_files_of_other_kinds(any_model, tmp_path):
    rows = pd.DataFrame(PROMPTS, columns=["review", "sentiment"])
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    small = {key: value for key, value in SMALL.items() if key != "prompts"} | {"coeffs": (2.0,), "scorer": _vowels}
    one = sentiment(any_model, prompts=tmp_path / "rows.csv", **small)
    other = sentiment(any_model, prompts=str(tmp_path / "rows.jsonl"), **small)
    pd.testing.assert_frame_equal(one.frame, other.frame)
    for name, text in (("broken.jsonl", "{not json"), ("rows.xyz", "x"), ("broken.parquet", "x")):
        (tmp_path / name).write_text(text)
        with pytest.raises(SteerlensError, match=r"cannot read prompts|of no kind that prompts"):
            sentiment(any_model, prompts=tmp_path / name, **small)


def test_bad_arguments_are_one_line(any_model):
    for wrong, said in (
        ({"coeffs": ()}, "coeffs is empty"),
        ({"n_prompts": 0}, "n_prompts must be"),
        ({"opening": 0}, "opening must be"),
        ({"chunk": 0}, "chunk must be"),
        ({"layers": (9,)}, "layer 9 is out of range"),
        ({"max_new_tokens": 0}, "max_new_tokens is"),
        ({"scorer": "no/such-thing"}, "cannot load the classifier 'no/such-thing'"),
        ({"embedder": "no/such-thing"}, "cannot load the embedder 'no/such-thing'"),
        ({"scorer": 7}, "scorer=7 is no scorer"),
    ):
        with pytest.raises(SteerlensError, match=said):
            sentiment(any_model, **(SMALL | {"scorer": _vowels} | wrong))
