"""Figures stay readable with the layers of a real model, with a few values far from the rest, and with few layers."""

import numpy as np
import pandas as pd
import pytest

from steerlens import figures
from steerlens.figures.choices import effect_by_choice
from steerlens.figures.cropping import cut_marks, window_of
from steerlens.figures.shift_parts import shift_parts_bars
from tests.figures.frames import places, shift, summary


def parts(layers, tokens=(" wedding", " the"), *, other=False):
    rng = np.random.default_rng(layers)
    kinds = ["attention", "mlp", *(["other"] if other else [])]
    where = [("vector", 0), *((kind, layer) for layer in range(layers) for kind in kinds), ("rescaling", pd.NA)]
    rows = [
        {"label": "2 × weddings", "token": token, "token_id": index, "part": part, "part_layer": layer}
        | {"contribution": rng.normal()}
        for index, token in enumerate(tokens)
        for part, layer in where
    ]
    return pd.DataFrame(rows).astype({"part_layer": "Int64"})


@pytest.mark.parametrize("layers", [4, 30, 80])
def test_every_token_has_a_panel_whose_bars_sum_to_its_shift(layers):
    frame = parts(layers)
    figure = shift_parts_bars(frame)
    totals = frame.groupby("token", sort=False)["contribution"].sum()
    panels = {bar.yaxis for bar in figure.data}
    assert len(panels) == len(totals)
    for panel, total, heading in zip(sorted(panels), totals, figure.layout.annotations, strict=False):
        bars = [bar for bar in figure.data if bar.yaxis == panel]
        assert sum(float(np.sum(bar.y)) for bar in bars) == pytest.approx(total)
        assert f"{abs(total):.3g}" in heading.text
        assert all(len(set(bar.x)) == len(bar.x) for bar in bars), "a layer has one bar of a kind"
        assert max(len(bar.x) for bar in bars) <= layers, "layers, not parts, stand beside each other"
        low, high = figure.layout[panel.replace("y", "yaxis")].range
        stacks = pd.concat([pd.Series(bar.y, index=list(bar.x)) for bar in bars])
        assert low < stacks[stacks < 0].groupby(level=0).sum().min()
        assert high > stacks[stacks > 0].groupby(level=0).sum().max()
    assert len(figure.layout.xaxis.tickvals) <= 20


def test_other_parts_are_explained_where_they_are_and_rounding_is_no_shift():
    def legend(figure):
        return [bar.name for bar in figure.data if bar.showlegend]

    plain, with_other = legend(shift_parts_bars(parts(4))), legend(shift_parts_bars(parts(4, other=True)))
    assert not any("other" in name for name in plain)
    assert [name for name in with_other if name not in plain] == ["other: rounding, or what<br>else a block adds"]
    assert len(with_other) == len(set(with_other)), "each kind of part once, however many panels"
    even = parts(4, tokens=(" a",))
    even.loc[even.index[-1], "contribution"] -= even["contribution"].sum() + 1e-17
    assert shift_parts_bars(even).layout.annotations[0].text == "␣a 0 nats"


def test_a_window_keeps_what_must_be_seen_and_all_that_is_no_outlier():
    values = pd.Series([*np.linspace(0.0, 1.0, 19), 12.0])
    assert not window_of(values).beyond.any(), "without leave nothing is beyond"
    far = pd.Series(False, index=values.index)
    cropped = window_of(values, keep=far)
    assert list(values[cropped.beyond]) == [12.0] and (cropped.low, cropped.high) == (0.0, 1.0)
    assert cropped.inside(values).max() == 1.0
    assert not window_of(values, keep=far | (values == 12.0)).beyond.any()
    assert not window_of(pd.Series([0.0, 1.0, 2.0, 3.0]), keep=far[:4]).beyond.any()
    assert not window_of(pd.Series([0.0, 0.0, 0.0]), keep=far[:3]).beyond.any()


def test_long_intervals_are_cut_at_half_the_length_and_say_so():
    values = pd.Series([0.0, 1.0, 2.0])
    low, high = values - pd.Series([0.1, 50.0, np.nan]), values + pd.Series([0.1, 50.0, np.nan])
    window = window_of(values, low, high)
    assert (window.low, window.high) == (-1.0, 3.0)
    (below, bottom), (above, top) = window.cut(low, high)
    assert list(below) == list(above) == [False, True, False]
    assert (bottom, top) == (-1.0, 3.0)
    near = window_of(values, values - 0.1, values + 0.1)
    assert (near.low, near.high) == pytest.approx((-0.1, 2.1))


def damage(layers, far=9.0):
    frame = summary(layers=range(layers), control=True).rename(columns={"mean": "effect"})
    frame = frame.assign(effect_low=frame["effect"] - 0.01, effect_high=frame["effect"] + 0.01)
    frame["damage"] = np.linspace(0.0, 0.5, len(frame))
    frame.loc[frame.index[-1], "damage"] = far  # a random vector: little effect, so never on the front
    return frame.assign(damage_low=frame["damage"] - 0.1, damage_high=frame["damage"] + 0.1).drop(
        columns=["low", "high"]
    )


@pytest.mark.parametrize("layers", [4, 30])
def test_one_broken_condition_does_not_squeeze_the_others(layers):
    frame = damage(layers)
    figure = figures.effect_against_damage(frame)
    low, high = figure.layout.xaxis.range
    assert low < 0 and 0.5 <= high < 1.0
    assert "1 condition is beyond the right edge (→), up to 9" in figure.layout.title.subtitle.text
    assert [note.text for note in figure.layout.annotations] == ["→"]
    drawn = [x for trace in figure.data if trace.mode == "markers" for x in trace.x if x is not None]
    assert len(drawn) == len(frame) and max(drawn) < high, "it stands at the edge"
    assert any("9" in text for trace in figure.data if trace.hovertext for text in trace.hovertext)
    best = frame["effect"].idxmax()
    kept = figures.effect_against_damage(frame.assign(damage=frame["damage"].where(frame.index != best, 30.0)))
    assert kept.layout.xaxis.range[1] > 30, "what is on the front is never cut off"


def test_of_many_conditions_only_those_on_the_front_have_bars():
    for layers, every in ((4, True), (30, False)):
        figure = figures.effect_against_damage(damage(layers, far=0.5))
        bars = [
            bool(length)
            for trace in figure.data
            if trace.error_y.array is not None
            for length in np.nan_to_num(np.asarray(trace.error_y.array, dtype=float))
        ]
        assert any(bars) and all(bars) == every


def test_intervals_beyond_the_frame_end_in_a_mark():
    frame = damage(4, far=0.5)
    plain = figures.effect_against_damage(frame)
    assert not any("beyond the frame" in (trace.name or "") for trace in plain.data)
    frame["damage_high"] = frame["damage"] + 40.0
    cut = figures.effect_against_damage(frame)
    (marks,) = [trace for trace in cut.data if "beyond the frame" in (trace.name or "")]
    assert set(marks.marker.symbol) == {"triangle-right"}
    assert cut.layout.xaxis.range[0] < marks.x[0] < cut.layout.xaxis.range[1]


@pytest.mark.parametrize(
    ("low", "high"), [(0.86, 1.56), (0.97, 1.03), (0.4, 9.0), (0.48, 2.6), (0.002, 0.011), (3.0, 3.0), (900.0, 1200.0)]
)
def test_a_logarithmic_axis_has_enough_ticks_and_no_two_alike(low, high):
    axis = figures.norm_growth(pd.DataFrame({"series": "a", "layer": [0, 1], "norm": [low, high]})).layout.yaxis
    inside = [tick for tick in axis.tickvals if low * 0.95 <= tick <= high * 1.05]
    assert len(inside) >= (3 if high > low else 1)
    assert len(set(axis.ticktext)) == len(axis.ticktext)
    assert [float(text.replace(",", "")) for text in axis.ticktext] == pytest.approx(list(axis.tickvals), rel=1e-2)


@pytest.mark.parametrize("tokens", [1, 2, 12])
def test_the_colour_bar_has_room_for_its_title(tokens):
    rows = places().query("token_id == 0")
    frame = pd.concat([rows.assign(token=f" word{i}", token_id=i) for i in range(tokens)])
    figure = figures.token_position_heatmap(frame)
    title = figure.layout.coloraxis.colorbar.title.text
    plot = figure.layout.height - figure.layout.template.layout.margin.t - figure.layout.template.layout.margin.b
    assert max(map(len, title.split("<br>"))) * 8 <= max(plot, 150)
    assert title.replace("<br>", " ").replace("- ", "-") == "change of log-probability (nats)"


def test_numbers_beside_bars_have_room_before_the_names_of_the_tokens():
    def room(frame):
        low, high = figures.logit_shift_bars(frame).layout.xaxis.range
        return (min(frame["shift"]) - low) / (high - low)

    short = shift().assign(prob_base=0.5, prob_steered=0.5)
    long = shift().assign(prob_base=1e-9, prob_steered=0.0123)
    assert room(long) > room(short) > 0.05
    assert figures.logit_shift_bars(short).data[0].text[0] == "both 50 %"


@pytest.mark.parametrize(("coeffs", "named"), [((1.0, 4.0), 2), ((0.5, 1.0, 2.0, 4.0, 8.0, 16.0), 1)])
def test_controls_of_many_lines_share_an_entry_in_the_legend(coeffs, named):
    figure = figures.layer_sweep(summary(layers=range(30), coeffs=coeffs, control=True))
    controls = [trace for trace in figure.data if "random vector" in (trace.name or "")]
    assert len(controls) == len(coeffs)
    assert sum(trace.showlegend for trace in controls) == named
    assert len({trace.legendgroup for trace in controls}) == named


@pytest.mark.parametrize(("count", "between"), [(4, "<br>"), (30, " ")])
def test_choices_are_labelled_with_their_tokens_in_the_room_there_is(count, between):
    rows = [
        {"choice": str(i), "metric": "effect", "kind": "nats", "mean": 1.0, "low": np.nan, "high": np.nan}
        for i in range(count)
    ]
    figure = effect_by_choice(pd.DataFrame(rows), names={str(i): " and" for i in range(count)})
    assert list(figure.layout.xaxis.ticktext) == [f"{i}{between}␣and" for i in range(count)]


def test_upright_intervals_that_leave_the_frame_are_marked_at_its_edge() -> None:
    x, low, high = pd.Series([0.0, 1.0, 2.0]), pd.Series([0.5, -3.0, np.nan]), pd.Series([1.5, 9.0, np.nan])
    marks = cut_marks(x, low, high, [0.0, 2.0])
    assert list(marks.x) == [1.0, 1.0] and list(marks.marker.symbol) == ["triangle-down", "triangle-up"]
    assert 0.0 < marks.y[0] < 0.1 and 1.9 < marks.y[1] < 2.0
    assert not len(cut_marks(x, low, high, [-4.0, 10.0]).x)
