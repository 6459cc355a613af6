"""Methods compared: each at what its search found, all on the same held-out prompts and samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import steerlens as sl
from steerlens.measures import verdicts as v
from steerlens.measures.comparing import compared_methods, method_differences
from steerlens.runs import methods, parts
from steerlens.runs.methods import trained_vectors
from steerlens.steering.extraction.lessons import NothingLearned

PROMPTS = ["I went up to my friend and said", "The weather today is", "My dog and I"]
THINGS = ("tea", "rain", "dogs", "snow", "wine", "work", "music", "cats")
SET = sl.ContrastSet.of([(f"I love {one}", f"I hate {one}") for one in THINGS])
HAS_E = sl.metrics.Metric("an e", "share", lambda texts: np.array([float("e" in text) for text in texts]))
HOW = {
    "goal": HAS_E,
    "methods": ["mean_difference", "pca"],
    "layers": [1],
    "budget": 120,
    "confirm": 3,
    "n": 1,
    "max_new_tokens": 4,
    "strengths": [sl.norm_share(0.5), sl.norm_share(1.0)],
    "progress": False,
}


@pytest.fixture(scope="module")
def compared(any_model) -> sl.Comparison:
    return sl.compare(any_model, SET, PROMPTS, baselines=["random", sl.Prompting("Love!")], **HOW)


def test_each_method_stands_at_its_best_and_at_equal_damage(compared, any_model, tmp_path: Path) -> None:
    steered = compared.frame[compared.frame["role"] == "steered"]
    assert set(zip(steered["method"], steered["setting"], strict=True)) == {
        (method, setting) for method in ("mean_difference", "pca") for setting in ("best", "equal damage")
    }
    assert set(compared.completions["prompt"]) == {PROMPTS[2]}  # the last third
    assert compared.frame["role"].tolist().count("prompting") == compared.frame["role"].tolist().count("unsteered") == 1
    for method, search in compared.searches.items():
        rows = compared.completions.query("setting == 'best' and role == 'steered'")
        rows = rows[rows["method"] == method]
        alone = sl.generate(any_model, PROMPTS[2], search.best, n=3, max_new_tokens=4, seed=1)
        assert rows["completion"].tolist() == alone["completion"].tolist()
        assert int(search.frame["spent"].iloc[-1]) <= 120
    page = compared.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "equal damage" in page and "prompting: Love!" in page
    assert len(compared.plot().data[0].y) == 5 and "mean_difference, best" in repr(compared)
    assert set(compared.pairs["setting"]) == {"best", "equal damage"} and len(compared.pairs) == 6


def test_a_comparison_that_was_stopped_goes_on_from_its_folder(
    compared, any_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {**HOW, "baselines": ["random", sl.Prompting("Love!")], "storage": tmp_path / "kept"}
    sampled: list[int] = []
    real = parts.generate

    def counted(*given, **options):
        sampled.append(len(given[2]))
        if len(sampled) == 3:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(parts, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        sl.compare(any_model, SET, PROMPTS, **how)
    before = sum(sampled[:2])
    del sampled[:]
    monkeypatch.setattr(
        parts, "generate", lambda *given, **options: (sampled.append(len(given[2])), real(*given, **options))[1]
    )
    found = sl.compare(any_model, SET, PROMPTS, **how)
    pd.testing.assert_frame_equal(found.frame, compared.frame)
    assert found.completions["completion"].tolist() == compared.completions["completion"].tolist()
    fresh = sum(sampled)
    del sampled[:]
    again = sl.compare(any_model, SET, PROMPTS, **how)
    assert not sampled and before > 0 and fresh > 0
    pd.testing.assert_frame_equal(again.frame, compared.frame)
    with pytest.raises(sl.SteerlensError, match="storage must be a folder"):
        sl.compare(any_model, SET, PROMPTS, **{**how, "storage": Path(__file__)})


def test_methods_of_any_name_stay_in_the_folder(any_model, tmp_path: Path) -> None:
    names = ["compared", "../out", "a/b", "a b", "a_b", "x" * 300]
    vectors = [sl.mean_difference(any_model, SET, layer=1)]
    how = {**HOW, "methods": dict.fromkeys(names, vectors), "confirm": 1, "baselines": []}
    kept = tmp_path / "kept"
    found = sl.compare(any_model, SET, PROMPTS, **how, storage=kept)
    assert list(found.searches) == names and {one.name for one in tmp_path.iterdir()} == {"kept"}
    assert len([one for one in kept.iterdir() if one.suffix == ".sqlite"]) == len(names) + 1


def test_trained_vectors_stand_at_layers_from_the_middle_on(any_model) -> None:
    found = trained_vectors(any_model, SET, layers="all")
    assert list(found) == sorted(found) and min(found) >= any_model.cfg.n_layers // 2
    assert {vector.source["objective"] for vector in found.values()} == {"log-probability"}
    asked = [f"Do you like {one}?" for one in THINGS[:4]]
    answers = sl.ContrastSet([f"{one} Yes" for one in asked], [f"{one} No" for one in asked], context=asked)
    (preferred,) = trained_vectors(any_model, answers, layers=[1]).values()
    assert preferred.source["objective"] == "preference"


def test_a_layer_where_nothing_is_learned_is_left_out(any_model, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_layer_2_only(model, targets, *, layer, **how):
        if layer != 2:
            raise NothingLearned("none of 25 steps improved on no vector")
        return sl.mean_difference(model, SET, layer=layer)

    monkeypatch.setattr(methods, "trained", at_layer_2_only)
    assert list(trained_vectors(any_model, SET, layers=[0, 1, 2])) == [2]
    with pytest.raises(NothingLearned):
        trained_vectors(any_model, SET, layers=[1])


def test_what_the_contrast_is_not_enough_for_is_named(any_model, tmp_path: Path) -> None:
    pair = sl.PromptPair(" love", " hate")
    found = sl.compare(any_model, pair, PROMPTS[0], **{**HOW, "methods": "all"})
    assert set(found.searches) == {"actadd"}
    assert "Differences" in found.report(tmp_path / "page.html").read_text("utf-8")
    alone = sl.compare(any_model, pair, PROMPTS[0], baselines=[], **{**HOW, "methods": "all"})
    assert alone.pairs.empty and "Differences" not in alone.report(tmp_path / "page.html").read_text("utf-8")
    assert any(note.startswith("no pca") for note in found.notes)
    assert any("nothing is held out" in note for note in found.notes)
    assert "prompting:  love" in " ".join(found.frame["method"]) or "prompting: love" in " ".join(found.frame["method"])


def completions(shares: dict[tuple[str, str, str], float], n: int = 30) -> pd.DataFrame:
    rows = []
    for condition, ((role, method, setting), share) in enumerate(shares.items()):
        for prompt in range(6):
            for sample in range(n):
                where = {"condition": condition, "label": method, "role": role, "method": method, "setting": setting}
                where |= {"layer": 1 if role in ("steered", "random") else pd.NA, "coeff": 1.0, "placement": "all"}
                seen = {"prompt": f"p{prompt}", "sample": sample, "completion": "x", "finished": True, "surprise": 1.0}
                rows.append({**where, **seen, "hit": float(sample < share * n)})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def test_a_random_vector_belongs_to_its_method() -> None:
    """Both methods are at the same layer and coefficient; the one whose random vector does as well does not work."""
    metric = sl.metrics.Metric("hit", "share", lambda texts: np.zeros(len(texts)))
    frame = completions(
        {
            ("unsteered", "", ""): 0.0,
            ("steered", "a", "best"): 0.5,
            ("steered", "b", "best"): 0.5,
            ("random", "a", "best"): 0.0,
            ("random", "b", "best"): 0.5,
            ("prompting", "words", ""): 0.4,
        }
    )
    table = compared_methods(frame, metric).set_index("method")
    assert table["verdict"]["a"] == v.WORKS and table["verdict"]["b"] == v.NO_BETTER_THAN_RANDOM
    assert (table["random"]["a"], table["random"]["b"]) == (0.0, 0.5)
    pairs = method_differences(frame, metric).set_index(["first", "second"])
    assert pairs["difference"]["a", "b"] == 0 and pairs["p"]["a", "b"] == 1
    assert pairs["difference"]["a", "words"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"methods": ["magic"]}, "methods holds 'magic'"),
        ({"methods": []}, "no method is left"),
        ({"methods": ["actadd"]}, "no method is left"),
        ({"baselines": ["placebo"]}, "baselines holds 'placebo'"),
        ({"baselines": [sl.Prompting("Love " * 200)]}, "does not fit"),
        ({"contrast": "love"}, "contrast must be"),
        ({"held_out": PROMPTS[:1]}, "that settings are chosen on"),
        ({"goal": sl.metrics.length()}, "goal must be a share"),
        ({"budget": 0}, "budget must be"),
        ({"confirm": 0}, "confirm must be"),
        ({"damage": 0}, "damage must be"),
        ({"n": 0}, "n is 0"),
        ({"prompts": []}, "list of prompts is empty"),
        ({"model": None}, "model"),
    ],
)
def test_bad_input_is_one_line(any_model, arguments, words) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as error:
        sl.compare(**{"model": any_model, "contrast": SET, "prompts": PROMPTS, **HOW, **arguments})
    assert "\n" not in str(error.value)
