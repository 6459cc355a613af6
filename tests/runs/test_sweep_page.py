"""The page of a sweep says what was found, and says so where nothing was."""

from __future__ import annotations

import pandas as pd
import pytest

import steerlens as sl
from steerlens.cli.sweep import told
from steerlens.measures.summaries import subject
from steerlens.runs.sweep import Sweep
from steerlens.runs.sweep_page import sweep_page

N = 40


def swept(steered: float) -> Sweep:
    """A sweep of two layers in which a share of the completions of layer 2 has the word."""
    parts = []
    shares = (
        ("unsteered", 0, 0.0),
        ("steered", 1, 0.0),
        ("steered", 2, steered),
        ("random", 1, 0.1),
        ("random", 2, 0.0),
    )
    for number, (role, layer, share) in enumerate(shares):
        texts = [" a wedding" if sample < share * N else " a house" for sample in range(N)]
        where = {"condition": number, "label": role, "role": role, "coeff": float(role != "unsteered")}
        where |= {"layer": pd.NA if role == "unsteered" else layer, "placement": "front", "prompt": "I saw"}
        parts.append(pd.DataFrame({**where, "sample": range(N), "completion": texts, "n_tokens": 2}))
    frame = pd.concat(parts, ignore_index=True).astype({"layer": "Int64"})
    metric = sl.metrics.words("weddings")
    settings = {"what": "weddings − space", "model": "some model", "n": N}
    return Sweep(frame.assign(weddings=metric(frame["completion"])), (metric,), settings)


def test_an_effect_is_a_tile_a_mark_and_a_row() -> None:
    result = swept(0.6)
    page = sweep_page(result.frame, result.summary, result.metrics[0], result.settings)
    assert [one.value for one in page.headlines] == ["2", "60.0%", "0.0%", "0.0%"]
    table = page.tables["Every condition"]
    assert table.loc[table["differs from its controls"] == "yes", "layer"].tolist() == [2]
    assert any("layer 2" in note.text for note in result.plot().layout.annotations)
    assert "best: layer 2" in told(result)
    assert repr(result) == (
        "Sweep(weddings − space on some model: conditions 5; completions 200; "
        "highest weddings 60.0% at layer 2, coefficient 1; unsteered 0.0%)"
    )


@pytest.mark.parametrize("share", [0.05, 0.0])
def test_noise_is_no_effect(share: float) -> None:
    result = swept(share)
    page = sweep_page(result.frame, result.summary, result.metrics[0], result.settings)
    assert page.headlines[0].value == "no effect found" and "corrected for 2 conditions" in page.headlines[0].note
    assert "best layer" not in [one.label for one in page.headlines]
    assert not (page.tables["Every condition"]["differs from its controls"] == "yes").any()
    for figure in (result.plot(), page.figures[""]):
        assert not figure.layout.annotations
        assert "no effect found" in figure.layout.title.subtitle.text
    text = told(result)
    assert "no effect found: no condition differs" in text and "best: " not in text


def test_vectors_with_one_name_are_named_once() -> None:
    result = swept(0.6)
    settings = {**result.settings, "what": ["mean difference (5 − 5 prompts)"] * 6}
    result = Sweep(result.frame, result.metrics, settings)
    page = sweep_page(result.frame, result.summary, result.metrics[0], settings)
    assert page.title == "mean difference (5 − 5 prompts) on some model"
    assert "mean difference (5 − 5 prompts): weddings, 40 completions each" in " ".join(told(result).split())
    assert repr(result).startswith("Sweep(mean difference (5 − 5 prompts) on some model")
    assert subject({"what": ["a", "b", "a", "c", "d"]}) == "a, b and 2 more"
    assert subject({"what": "a − b"}) == "a − b"
