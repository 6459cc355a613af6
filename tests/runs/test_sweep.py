"""Sweeps: the grid they run, the numbers they report, the controls they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import steerlens as sl
from steerlens.measures.statistics import wilson_interval
from steerlens.steering.prompts import read_prompt
from steerlens.steering.random_vectors import random_like
from tests.conftest import KINDS, loaded
from tests.reference import N_LAYERS

PROMPT = "I went up to my friend and said"
PAIR = sl.PromptPair("Love you", "Hate")
METRICS = [sl.metrics.words("the", "a", "and", name="articles"), sl.metrics.length()]


@pytest.fixture(scope="module")
def swept(any_model):
    return sl.sweep(
        any_model,
        PAIR,
        [PROMPT, "The weather today is"],
        coeffs=[1, -2],
        n=3,
        max_new_tokens=5,
        metrics=METRICS,
        seed=4,
    )


def test_every_condition_is_there_once(swept) -> None:
    counts = swept.frame.groupby(["role", "coeff"], sort=False)["layer"].agg(lambda layer: layer.nunique())
    assert counts.to_dict() == {
        ("unsteered", 0.0): 0,
        ("steered", 1.0): N_LAYERS,
        ("steered", -2.0): N_LAYERS,
        ("random", 1.0): N_LAYERS,
        ("random", -2.0): N_LAYERS,
        ("prompting", 0.0): 0,
    }
    assert len(swept.frame) == (2 + 4 * N_LAYERS) * 2 * 3
    assert not swept.frame.duplicated(["condition", "prompt", "sample"]).any()


def test_the_sweep_is_its_single_runs(swept, any_model) -> None:
    """Law 8: each cell of the grid is what generate gives for that condition alone."""
    vector = -2 * sl.actadd(any_model, PAIR, layer=1)
    alone = sl.generate(any_model, [PROMPT, "The weather today is"], vector, n=3, max_new_tokens=5, seed=4)
    cell = swept.frame.query("role == 'steered' and layer == 1 and coeff == -2")
    assert cell["completion"].tolist() == alone["completion"].tolist()


def test_the_summary_is_the_frame_summed_up(swept) -> None:
    summary = swept.summary
    assert len(summary) == (2 + 4 * N_LAYERS) * len(METRICS)
    for row in summary.query("metric == 'articles'").itertuples():
        values = swept.frame.loc[swept.frame["condition"] == row.condition, "articles"]
        interval = wilson_interval(float(values.sum()), len(values))
        assert (row.n, row.mean, row.low, row.high) == (6, values.mean(), interval.low, interval.high)
    base = summary.query("role == 'unsteered'")
    assert base["layer"].isna().all() and (base["coeff"] == 0).all()
    best = swept.best("articles")
    assert best["mean"] == summary.query("metric == 'articles' and role == 'steered'")["mean"].max()


def test_random_controls_have_the_norm_and_nothing_else(any_model) -> None:
    for layer, vector in sl.actadd(any_model, PAIR, layers="all").items():
        other = random_like(vector, seed=0)
        assert torch.allclose(other.norms, vector.norms, rtol=1e-5)
        assert (other.values[0] == 0).all() and other.layer == layer
        cosine = torch.nn.functional.cosine_similarity(other.values[1:], vector.values[1:], dim=-1)
        assert cosine.abs().max() < 0.8
        assert torch.equal(random_like(vector, seed=0).values, other.values)
        assert not torch.equal(random_like(vector, seed=1).values, other.values)


def test_vectors_can_be_swept_too(any_model) -> None:
    means = sl.mean_difference(any_model, ["I love it", "So good"], ["I hate it", "So bad"], layers="all")
    result = sl.sweep(any_model, means, PROMPT, layers=[0, 2], n=2, max_new_tokens=3, metrics=METRICS, control=None)
    assert result.frame["layer"].dropna().unique().tolist() == [0, 2]
    assert result.frame.loc[result.frame["role"] == "steered", "placement"].eq("all").all()


def test_figure_and_report(swept, tmp_path: Path) -> None:
    figure = swept.plot("articles")
    assert len(figure.data) > 0
    page = swept.report(tmp_path / "sweep.html", command="steerlens sweep").read_text(encoding="utf-8")
    assert "Love you" in page and "steerlens sweep" in page and "random vector of equal norm" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"layers": [99]}, "layer 99 is out of range"),
        ({"layers": []}, "at least one layer"),
        ({"coeffs": []}, "coeffs is empty"),
        ({"coeffs": [float("inf")]}, "finite"),
        ({"control": "placebo"}, "control='placebo'"),
        ({"controls": "placebo"}, "controls='placebo'"),
        ({"controls": ["random", "placebo"]}, "controls holds 'placebo'"),
        ({"controls": "shuffled"}, "one pair has nothing to shuffle"),
        ({"controls": sl.Prompting("Love " * 200)}, "does not fit"),
        ({"what": []}, "at least one SteeringVector"),
        ({"what": "love"}, "PromptPair"),
        ({"n": 0}, "n is "),
    ],
)
def test_bad_input_is_one_clear_line(any_model, arguments, words) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.sweep(
            any_model, **{"what": PAIR, "prompts": PROMPT, "metrics": METRICS, "n": 1, "max_new_tokens": 2, **arguments}
        )


def test_a_resumed_sweep_has_the_batches_it_would_have_had_in_half_precision_too(tmp_path, monkeypatch) -> None:
    """In bfloat16 another shape of the batch gives another text, so equal tables mean equal batches."""
    from steerlens.runs import parts

    model = loaded("gpt2", KINDS[-1], dtype="bfloat16")
    vector = sl.actadd(model, " love", " hate", layer=1)
    what = {"what": vector, "prompts": PROMPT, "coeffs": [1, 2, 3, 4], "metrics": [sl.metrics.length()], "n": 2}
    how = {**what, "max_new_tokens": 8, "top_p": 1.0, "batch_size": 4, "progress": False}
    whole = sl.sweep(model, store=tmp_path / "whole.sqlite", **how)
    calls, generate = [], parts.generate

    def stopped(*args, **kwargs):
        calls.append(len(args[2]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*args, **kwargs)

    monkeypatch.setattr(parts, "generate", stopped)
    with pytest.raises(KeyboardInterrupt):
        sl.sweep(model, store=tmp_path / "resumed.sqlite", **how)
    resumed = sl.sweep(model, store=tmp_path / "resumed.sqlite", **how)
    assert resumed.frame["completion"].tolist() == whole.frame["completion"].tolist()
    assert calls[2] == calls[3], "the part that was stopped is done again as it was"


def test_what_is_given_twice_counts_once(demo: Any, tmp_path: Path) -> None:
    vector = sl.actadd(demo, "Love", "Hate", layer=2)
    few = {"metrics": [sl.metrics.words("love")], "n": 2, "max_new_tokens": 3, "progress": False}
    twice = sl.sweep(demo, vector, ["I am", "You are", "I am"], coeffs=[1, 4, 1.0], **few)
    once = sl.sweep(demo, vector, ["I am", "You are"], coeffs=[1, 4], **few)
    pd.testing.assert_frame_equal(twice.frame, once.frame)
    twice.plot()
    twice.report(tmp_path / "page.html")


def test_what_figures_could_not_tell_apart_is_refused_before_sampling(demo: Any) -> None:
    love, war = sl.actadd(demo, "Love", "Hate", layer=2), sl.actadd(demo, "War", "Peace", layer=2)
    some = {"metrics": [sl.metrics.words("love")], "n": 10**6}
    with pytest.raises(sl.SteerlensError, match="one vector per layer, but .*Love.* and .*War.* are both of layer 2"):
        sl.sweep(demo, [love, war], "I am", **some)
    ids = read_prompt(demo, "I am").ids
    with pytest.raises(sl.SteerlensError, match="two prompts show as 'I am'"):
        sl.sweep(demo, love, ["I am", list(ids[1:])], **some)


def test_a_sweep_in_which_nothing_is_said_has_its_report(demo: Any, tmp_path: Path) -> None:
    """Every completion ends before its first token: no text, so no fluency and no success, but a table of what was."""
    swept = sl.sweep(
        demo,
        sl.actadd(demo, "Love", "Hate", layer=2),
        "I am",
        metrics=[sl.metrics.words("love")],
        n=2,
        max_new_tokens=2,
        stop=list(range(demo.cfg.d_vocab)),
        progress=False,
    )
    assert (swept.frame["completion"] == "").all()
    table = swept.effects()
    assert (table["fluent"] == 0).all()
    assert table["surprise"].isna().all()
    assert set(swept.verdicts()["verdict"]) <= {"no effect found", "too few samples to say"}
    assert swept.report(tmp_path / "page.html").exists()
