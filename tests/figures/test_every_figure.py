"""Every figure is a function from a documented frame to a plotly figure."""

import json
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest

from steerlens import figures
from steerlens.errors import SteerlensError
from tests.figures.frames import lens, norms, places, scored, shift, summary


def trade():
    frame = summary(control=True).rename(columns={"mean": "effect"})
    return frame.assign(damage=np.linspace(0, 1, len(frame)))


CASES = {
    "layer_sweep": (figures.layer_sweep, summary, {}),
    "layer_coefficient_heatmap": (figures.layer_coefficient_heatmap, summary, {}),
    "effect_against_damage": (figures.effect_against_damage, trade, {}),
    "logit_shift_bars": (figures.logit_shift_bars, shift, {}),
    "token_position_heatmap": (figures.token_position_heatmap, places, {}),
    "text_log_probs": (figures.text_log_probs, scored, {}),
    "norm_growth": (figures.norm_growth, norms, {}),
    "layer_lens": (figures.layer_lens, lens, {}),
}
REQUIRED = {
    "layer_sweep": ["layer", "coeff", "metric", "kind", "mean", "low", "high"],
    "layer_coefficient_heatmap": ["layer", "coeff", "metric", "kind", "mean", "low", "high"],
    "effect_against_damage": ["label", "layer", "coeff", "effect", "damage"],
    "logit_shift_bars": ["label", "token", "shift", "prob_base", "prob_steered", "logprob_base", "logprob_steered"],
    "token_position_heatmap": ["label", "token", "position", "context", "shift"],
    "text_log_probs": ["label", "layer", "coeff", "position", "token", "logprob"],
    "norm_growth": ["series", "layer", "norm"],
    "layer_lens": ["label", "layer", "coeff", "lens_layer", "token", "logprob"],
}


@pytest.mark.parametrize("name", CASES)
def test_a_figure_is_drawn_from_its_frame_and_leaves_it_alone(name, monkeypatch):
    draw, make, options = CASES[name]
    monkeypatch.setattr(plotly.io, "show", lambda *a, **k: pytest.fail("a figure function showed its figure"))
    frame = make()
    before, default = frame.copy(), plotly.io.templates.default
    figure = draw(frame, **options)
    assert isinstance(figure, go.Figure)
    assert len(figure.data) > 0
    pd.testing.assert_frame_equal(frame, before)
    assert plotly.io.templates.default == default
    json.loads(figure.to_json())


@pytest.mark.parametrize("name", CASES)
def test_a_missing_column_is_named(name):
    draw, make, options = CASES[name]
    for column in REQUIRED[name]:
        with pytest.raises(SteerlensError, match=f"missing: {column} ") as caught:
            draw(make().drop(columns=column), **options)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_no_rows_and_no_frame_are_errors(name):
    draw, make, options = CASES[name]
    with pytest.raises(SteerlensError, match="0 rows"):
        draw(make().iloc[:0], **options)
    with pytest.raises(SteerlensError, match="pandas frame"):
        draw([1, 2], **options)


@pytest.mark.parametrize("name", CASES)
def test_axes_are_titled_and_no_user_text_is_read_as_markup(name):
    draw, make, options = CASES[name]
    figure = draw(make(), **options)
    layout = figure.to_plotly_json()["layout"]
    for key, axis in layout.items():
        if re.fullmatch(r"[xy]axis", key) and axis.get("visible", True):
            assert axis.get("title", {}).get("text"), key
    text = json.dumps(json.loads(figure.to_json()))
    assert "<script" not in text
    assert "<b>bold" not in text
    assert "$x" not in text


@pytest.mark.parametrize(("name", "column"), [("logit_shift_bars", "shift"), ("layer_lens", "lens_layer"),
                                              ("norm_growth", "layer"), ("layer_sweep", "coeff"),
                                              ("token_position_heatmap", "position")])  # fmt: skip
def test_nan_where_a_number_is_needed_is_counted_and_named(name, column):
    draw, make, _ = CASES[name]
    frame = make().astype({column: "float64"})
    frame.loc[1, column] = np.nan
    with pytest.raises(SteerlensError, match=rf"1 of {len(frame)} rows .*'{column}'"):
        draw(frame)


def test_words_where_numbers_are_needed_are_an_error():
    with pytest.raises(SteerlensError, match="'mean' holds more than numbers"):
        figures.layer_sweep(summary().astype({"mean": object}).assign(mean="high"))
