"""Figures of a sweep: means by layer and coefficient, the baseline, effect against damage."""

import numpy as np
import pandas as pd
import pytest

from steerlens import figures
from steerlens.errors import SteerlensError
from tests.figures.frames import summary


@pytest.mark.parametrize("layers", [1, 12, 80])
def test_layer_sweep_holds_the_means_and_the_baseline(layers):
    frame = summary(layers=range(layers), control=True)
    figure = figures.layer_sweep(frame)
    traces = {trace.name: trace for trace in figure.data if trace.name}
    assert set(traces) == {"1", "4", "1, random vector", "4, random vector", "unsteered"}
    steered = frame[(frame["role"] == "steered") & (frame["coeff"] == 4)]
    assert list(traces["4"].x) == list(range(layers))
    assert list(traces["4"].y) == list(steered["mean"])
    assert set(traces["unsteered"].y) == {0.02}
    assert figure.layout.xaxis.dtick == {1: 1, 12: 1, 80: 10}[layers]
    assert "n = 50" in traces["4"].hovertext[0]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == (3 if layers > 1 else 1)  # the lines' bands and the baseline's; one layer has error bars
    if layers > 1:
        assert max(max(band.y) for band in bands) == pytest.approx(steered["high"].max())


def test_layer_sweep_draws_bars_for_many_lines_or_on_request():
    many = figures.layer_sweep(summary(coeffs=(-4.0, -1.0, 1.0, 4.0)))
    assert [trace.name for trace in many.data if trace.name] == ["unsteered", "−4", "−1", "1", "4"]
    assert all(len(t.error_y.array) == 6 for t in many.data if t.name and t.name != "unsteered")
    colours = [t.line.color for t in figures.layer_sweep(summary(coeffs=range(1, 12))).data if t.name]
    assert len(set(colours)) == 12
    bars = figures.layer_sweep(summary(), interval="bars")
    assert bars.data[-1].error_y.array[0] == pytest.approx(0.02)
    assert bars.data[-1].error_y.arrayminus[0] == pytest.approx(0.01)


def test_layer_sweep_takes_several_metrics_units_and_gaps():
    both = pd.concat([summary(), summary(metric="KL", kind="nats").assign(low=np.nan, high=np.nan)])
    figure = figures.layer_sweep(both)
    assert "KL" in figure.layout.yaxis2.title.text
    assert "(nats)" in figure.layout.yaxis2.title.text
    assert len(figures.layer_sweep(both, metric="KL").data) == 3  # no bands where there are no limits
    with pytest.raises(SteerlensError, match="no row has metric 'war'"):
        figures.layer_sweep(both, metric="war")
    gaps = summary()
    gaps.loc[3, ["mean", "low", "high"]] = np.nan
    assert np.isnan(figures.layer_sweep(gaps).data[-3].y).sum() == 1


def test_layer_sweep_splits_placements_and_pairs_and_refuses_to_overlay_them_silently():
    frame = pd.concat([summary(coeffs=(4.0,)), summary(coeffs=(4.0,)).assign(placement="back")])
    names = [trace.name for trace in figures.layer_sweep(frame).data if trace.name]
    assert names[-2:] == ["4 · back", "4 · front"]
    pairs = pd.concat([summary(coeffs=(4.0,)).assign(pair="a"), summary(coeffs=(4.0,)).assign(pair="b")])
    with pytest.raises(SteerlensError, match="more than one row for metric weddings, line coefficient 4"):
        figures.layer_sweep(pairs)
    assert [trace.name for trace in figures.layer_sweep(pairs, by="pair").data if trace.name][-2:] == ["4 · a", "4 · b"]
    with pytest.raises(SteerlensError, match="by='pear'"):
        figures.layer_sweep(pairs, by="pear")


def test_layer_sweep_draws_a_condition_of_several_layers_as_a_line_across():
    frame = summary()
    frame.loc[1, "layer"] = pd.NA
    figure = figures.layer_sweep(frame)
    across = next(trace for trace in figure.data if trace.line.dash == "dot")
    assert set(across.y) == {frame.loc[1, "mean"]}


def test_the_baseline_is_known_without_a_role():
    frame = summary().drop(columns="role")
    assert any(trace.name == "unsteered" for trace in figures.layer_sweep(frame).data)


def test_heatmap_places_each_mean_and_the_baseline_row():
    figure = figures.layer_coefficient_heatmap(summary(coeffs=(-1.0, 4.0), control=True))
    z = np.array(figure.data[0].z)
    assert list(figure.layout.yaxis.ticktext) == ["−1", "0 (unsteered)", "4"]
    assert z.shape == (3, 6)
    assert (z[1] == 0.02).all()
    assert z[2, 5] == pytest.approx(0.1 + 0.01 * 5 * 4)
    random = figures.layer_coefficient_heatmap(summary(control=True), role="random")
    assert np.array(random.data[0].z)[-1, -1] == pytest.approx(0.03)
    assert figures.layer_coefficient_heatmap(summary(layers=range(80))).data[0].texttemplate is None
    with pytest.raises(SteerlensError, match="no steered row"):
        figures.layer_coefficient_heatmap(summary().iloc[:1])


def test_effect_against_damage_joins_the_pareto_front():
    frame = pd.DataFrame(
        {"label": ["unsteered", "a", "b", "c", "d"], "layer": [pd.NA, 1, 2, 3, 4], "coeff": [0.0, 1, 1, 1, 1]}
        | {"effect": [0.0, 1.0, 2.0, 0.5, np.nan], "damage": [0.0, 0.2, 0.5, 0.4, 0.1]}
    ).astype({"layer": "Int64"})
    figure = figures.effect_against_damage(frame, effect_title="effectiveness (nats)")
    assert list(figure.data[0].x) == [0.0, 0.2, 0.5]
    assert list(figure.data[0].y) == [0.0, 1.0, 2.0]
    assert figure.layout.yaxis.title.text == "effectiveness (nats)"
    hover = " ".join(text for trace in figure.data for text in (trace.hovertext or ()))
    assert hover.count("on the Pareto front") == 3
    with pytest.raises(SteerlensError, match="every row has NaN"):
        figures.effect_against_damage(frame.assign(effect=np.nan))


def test_a_heatmap_of_zeros_has_no_negative_shares():
    """All cells take the colour of 0, the lowest of the bar."""
    rows = pd.DataFrame({"layer": [1, 2], "coeff": 1.0, "metric": "weddings", "kind": "share", "mean": 0.0})
    colours = figures.layer_coefficient_heatmap(rows.assign(low=0.0, high=0.4)).layout.coloraxis
    assert (colours.cmin, colours.cmax) == (0.0, 1.0)
    assert figures.layer_coefficient_heatmap(rows.assign(mean=0.2, low=0.0, high=0.4)).layout.coloraxis.cmax is None
