"""Searches: every number is the completions' own, a search resumes as it was, and bad input is told in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import steerlens as sl
from steerlens.measures.measuring import MetricFailed
from tests.conftest import KINDS, loaded

PROMPTS = ["I went up to my friend and said", "The weather today is rather nice", "When I woke up"]
GOAL = sl.metrics.Metric("an e", "share", lambda texts: np.array(["e" in text for text in texts], dtype=float))
SCALE = [sl.norm_share(0.3), sl.norm_share(1.0), sl.norm_share(3.0)]
FEW = {"n": 4, "max_new_tokens": 4, "confirm": 3, "strengths": SCALE, "goal": GOAL, "progress": False}


@pytest.fixture(scope="module")
def model():
    return loaded("gpt2", KINDS[0])


@pytest.fixture(scope="module")
def vectors(model):
    return sl.mean_difference(model, ["a wedding", "the bride"], ["a car", "the sea"], layers="all")


@pytest.fixture(scope="module")
def found(model, vectors) -> sl.Search:
    return sl.search(model, vectors, PROMPTS, budget=800, margin=5.0, prompting="A story.", **FEW)


def test_it_says_what_it_sampled(found) -> None:
    completions = found.completions.dropna(subset=["candidate"])
    assert found.frame["spent"].iloc[-1] == found.completions["n_tokens"].sum() <= 800
    for row in found.candidates.itertuples():
        mine = completions[completions["candidate"] == row.candidate]
        assert (row.n, row.tokens) == (len(mine), mine["n_tokens"].sum())
        assert row.effect == mine["an e"].mean() == mine["completion"].str.contains("e").mean()
    last = found.frame.drop_duplicates("candidate", keep="last").set_index("candidate")
    table = found.candidates.set_index("candidate")
    assert last["success"].sort_index().tolist() == pytest.approx(table["success"].tolist())


def test_success_is_on_topic_and_fluent(found) -> None:
    """Recomputed from the completions: at most `margin` above the unsteered mean of the prompt."""
    usual = found.completions[found.completions["candidate"].isna()].groupby("prompt")["surprise"].mean()
    rows = found.completions.dropna(subset=["candidate"])
    good = rows["an e"] * (rows["surprise"] <= rows["prompt"].map(usual) + 5.0)
    assert good.groupby(rows["candidate"]).mean().tolist() == pytest.approx(found.candidates["success"].tolist())


def test_a_candidates_samples_are_those_of_generate(found, model) -> None:
    """Whatever was sampled together: a setting's completions are what `generate` gives for it alone."""
    from steerlens.runs.search_sampling import seed_of

    first = found.frame.iloc[0]
    chosen = found.candidates.set_index("candidate").loc[first["candidate"]]
    vector = sl.mean_difference(model, ["a wedding", "the bride"], ["a car", "the sea"], layer=int(chosen["layer"]))
    alone = sl.generate(model, PROMPTS[:2], chosen["coeff"] * vector, n=1, max_new_tokens=4, seed=seed_of(0, "rung 0"))
    mine = found.completions[found.completions["candidate"] == first["candidate"]]
    assert mine["completion"].tolist()[: len(alone)] == alone["completion"].tolist()


def test_the_best_setting_is_confirmed_on_prompts_of_its_own(found) -> None:
    told = found.confirmed
    assert set(told.frame["prompt"]) == {PROMPTS[2]}
    assert set(found.completions["prompt"]) == set(PROMPTS[:2])
    assert (
        sorted(told.table["role"]) == ["prompting", "random", "steered", "unsteered"] and (told.table["n"] == 3).all()
    )
    vector = found.candidate.injection.vector
    assert told.table.set_index("role").loc["steered", "coeff"] == vector.coeff
    assert found.best.layer == vector.layer and "on topic and fluent" in repr(found)


def test_the_figure_and_the_page_say_what_was_found(found, tmp_path: Path) -> None:
    figure = found.plot()
    assert list(figure.data[0].x) == found.frame["spent"].tolist()
    page = found.report(tmp_path / "found.html", command="steerlens search").read_text(encoding="utf-8")
    assert found.confirmed.verdict in page and "steerlens search" in page
    front = found.front()
    assert front["knee"].sum() == 1 and (front["surprise"].diff().dropna() >= 0).all()


def test_it_resumes_from_its_storage(model, vectors, tmp_path: Path) -> None:
    place = tmp_path / "search.sqlite"
    options = {**FEW, "storage": place, "margin": 5.0}
    sl.search(model, vectors, PROMPTS, budget=400, **options)
    longer = sl.search(model, vectors, PROMPTS, budget=800, **options)
    again = sl.search(model, vectors, PROMPTS, budget=800, **options)
    alone = sl.search(model, vectors, PROMPTS, budget=800, **{**options, "storage": None})
    for other in (again, alone):
        pd.testing.assert_frame_equal(longer.frame, other.frame)
        pd.testing.assert_frame_equal(longer.confirmed.frame, other.confirmed.frame)
    kept = sl.read_store(place)
    assert set(longer.completions["completion"]) <= set(kept["completion"])
    with pytest.raises(sl.SteerlensError, match="holds another search"):
        sl.search(model, vectors, PROMPTS[:2], budget=800, **options)
    pd.testing.assert_frame_equal(sl.read_store(place), kept)


def test_one_prompt_says_that_nothing_is_held_out(model, vectors) -> None:
    found = sl.search(model, vectors, PROMPTS[0], budget=200, **FEW)
    assert found.note.startswith("no held-out prompts") and found.note in repr(found)
    assert set(found.confirmed.frame["prompt"]) == {PROMPTS[0]}
    assert not set(found.confirmed.frame["seed"]) & set(found.completions["seed"])


@pytest.mark.parametrize("strategy", ["random", "random+halving", "ordered+halving", "tpe", "tpe+halving"])
def test_other_strategies_keep_to_the_budget(model, vectors, strategy: str) -> None:
    if strategy.startswith("tpe"):
        pytest.importorskip("optuna")
    found = sl.search(model, vectors, PROMPTS, budget=400, strategy=strategy, **{**FEW, "confirm": 0})
    assert found.frame["spent"].iloc[-1] <= 400 and found.confirmed is None


def test_directions_operations_and_placements_are_searched(model, vectors) -> None:
    pair = sl.PromptPair(" weddings", " ")
    found = sl.search(
        model,
        {"pair": pair, "sentences": vectors},
        PROMPTS,
        operations=["add", "add_keep_norm"],
        placements=["all", "front", "last"],
        budget=100_000,
        **{**FEW, "confirm": 0, "n": 1, "max_new_tokens": 1},
    )
    rows = found.candidates
    # A pair's vector spans several positions and goes to the front; one of one position goes anywhere.
    assert set(rows.loc[rows["direction"] == "pair", "placement"]) == {"front"}
    assert set(rows.loc[rows["direction"] == "sentences", "placement"]) == {"all", "front", "last"}
    assert set(rows["operation"]) == {"add", "add_keep_norm"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": 0}, "budget must be a whole number of at least 1"),
        ({"budget": 30}, "does not pay for one setting"),
        ({"goal": sl.metrics.length()}, "goal must be a share"),
        ({"goal": "weddings"}, "goal must be a metric"),
        ({"goal": sl.metrics.Metric("bad", "share", lambda texts: 1 / 0)}, "fails on"),
        ({"goal": sl.metrics.Metric("long", "share", lambda texts: np.zeros(7))}, "gave shape"),
        ({"strengths": [sl.norm_share(0.1), sl.iso_kl(0.1)]}, "several of one kind"),
        ({"strengths": [sl.iso_kl(1000.0)], "placements": "generated"}, "iso_kl is the KL of the next token"),
        ({"strengths": [sl.norm_share(1e-9)], "placements": "last"}, "no setting is left to search"),
        ({"held_out": PROMPTS[0]}, "held_out has a prompt that is searched on"),
        ({"layers": [99]}, "out of range"),
        ({"strategy": "luck"}, "strategy='luck' is unknown"),
        ({"operations": "affine"}, "operations must be at least one of"),
    ],
)
def test_bad_input_is_told_in_one_line(model, vectors, change, says: str) -> None:
    with pytest.raises(sl.SteerlensError, match=says):
        sl.search(model, vectors, PROMPTS, **{**FEW, "budget": 400, **change})


def test_a_goal_that_fails_later_loses_no_completion(model, vectors, tmp_path: Path) -> None:
    calls = []

    def fails(texts) -> np.ndarray:
        calls.append(len(texts))
        if len(calls) > 5:  # (checked on a few texts, then on the unsteered completions)
            raise RuntimeError("the scorer is gone")
        return np.ones(len(texts))

    goal = sl.metrics.Metric("scored", "share", fails)
    place = tmp_path / "kept.sqlite"
    with pytest.raises(MetricFailed, match="the scorer is gone") as failed:
        sl.search(model, vectors, PROMPTS, storage=place, **{**FEW, "goal": goal, "budget": 800})
    assert set(failed.value.frame["completion"]) == set(sl.read_store(place)["completion"])


def test_a_goal_without_a_number_says_so(model, vectors) -> None:
    goal = sl.metrics.Metric("nothing", "share", lambda texts: np.full(len(texts), np.nan))
    with pytest.raises(MetricFailed, match="has no number for any completion") as failed:
        sl.search(model, vectors, PROMPTS, **{**FEW, "goal": goal, "budget": 400})
    assert len(failed.value.frame) > 0
