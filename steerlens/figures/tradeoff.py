"""Figure of what steering costs: effect against damage, with the Pareto front."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import condition_numbers, require, roles
from steerlens.figures.cropping import Window, window_of
from steerlens.figures.intervals import error_bars
from steerlens.measures.statistics import pareto_front

_BARS = 30  # points; of more, only those on the front have their intervals drawn


def effect_against_damage(
    frame: pd.DataFrame,
    *,
    effect: str = "effect",
    damage: str = "damage",
    effect_title: str | None = None,
    damage_title: str | None = None,
    better: Literal["higher", "lower"] = "higher",
    title: str | None = None,
) -> go.Figure:
    """Scatter of what steering achieved against what it broke, the Pareto front joined by a line.

    `frame`, one row per condition: label (str), layer (NA for the baseline), coeff, and the two columns that `effect`
    (`better` says which way is success) and `damage` (less is better) name; optional `<effect>_low`, `<effect>_high`,
    `<damage>_low`, `<damage>_high` are drawn as bars. The titles name axes with their units and default to the column
    names. Colour is the layer, shape the coefficient (one shape beyond 6 coefficients), an open grey circle the
    baseline, a star prompting, open and dotted shapes other controls (optional column role). Of more than 30 conditions
    only those on the front have bars. A few conditions of far greater damage that are not on the front stand at the
    right edge with an arrow, and bars that leave the frame end in a triangle. Rows with NaN in effect or damage are
    left out. Raises SteerlensError for missing columns, 0 rows, or nothing left.
    """
    name = "effect_against_damage"
    data = require(frame, name, text=["label"], numbers=["coeff"], gaps=["layer", effect, damage])
    data = data[data[effect].notna() & data[damage].notna()].reset_index(drop=True)
    if data.empty:
        raise SteerlensError(f"{name}: every row has NaN in {effect!r} or {damage!r}; nothing is left to draw")
    data["front"] = pareto_front(data[effect] * (1 if better == "higher" else -1), data[damage])
    data["role"] = roles(data)
    x_title, y_title = damage_title or damage, effect_title or effect
    data["barred"] = data["front"] | (len(data) <= _BARS)
    across = window_of(
        data[damage], *_limits(data, damage), keep=data["front"] | data["role"].isin(["unsteered", "prompting"])
    )
    data.loc[across.beyond, "barred"] = False
    up = window_of(data[effect], *_limits(data, effect))
    figure = theme.new_figure(
        title or "Effect against damage",
        f"{'up' if better == 'higher' else 'down'} and to the left is better; "
        "the line joins conditions that no other beats on both",
        height=560,
    )
    front = data[data["front"]].sort_values([damage, effect])
    figure.add_trace(
        go.Scatter(
            x=front[damage],
            y=front[effect],
            mode="lines",
            line={"color": theme.BASELINE, "width": 1.5, "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    points = data[~data["role"].isin(["unsteered", "prompting"])]
    known = points["layer"].notna().any()
    layers = (points["layer"].min(), points["layer"].max()) if known else (0, 1)
    hover = functools.partial(_damage_hover, effect=effect, damage=damage, x_title=x_title, y_title=y_title)
    figure.add_traces(_condition_traces(points, effect, damage, hover, across, up, first_layer=layers[0]))
    for role, symbol in (("prompting", "star"), ("unsteered", "circle-open")):
        base = data[data["role"] == role]
        if len(base):
            figure.add_trace(
                go.Scatter(
                    x=base[damage],
                    y=base[effect],
                    mode="markers",
                    name=role,
                    marker={"symbol": symbol, "size": 12, "color": theme.BASELINE, "line": {"width": 2}},
                    customdata=condition_numbers(base),
                    hovertext=[hover(row) for _, row in base.iterrows()],
                    hovertemplate="%{hovertext}<extra></extra>",
                )
            )
    figure.update_layout(coloraxis=_layer_colours(*layers), legend={"title": {"text": "coefficient"}}, margin_b=150)
    figure.update_xaxes(title_text=theme.escape(x_title), showgrid=True, range=across.range)
    figure.update_yaxes(title_text=theme.escape(y_title), range=up.range)
    _mark_what_is_cut(figure, data, effect, damage, across, up)
    return figure


def _limits(data: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series]:
    """The limits of a column's intervals, NaN where none is known or drawn."""
    none = pd.Series(np.nan, index=data.index)
    low, high = (data.get(f"{column}_{end}", none).astype("float64") for end in ("low", "high"))
    return low.where(data["barred"]), high.where(data["barred"])


def _mark_what_is_cut(
    figure: go.Figure, data: pd.DataFrame, effect: str, damage: str, across: Window, up: Window
) -> None:
    """Arrows at conditions beyond the frame, triangles where a bar goes on beyond it, and both in words."""
    far = data[across.beyond]
    for row in far.itertuples():
        figure.add_annotation(x=across.high, y=getattr(row, effect), text="→", xshift=14, font={"size": 14})
    if len(far):
        whose = "1 condition is" if len(far) == 1 else f"{len(far)} conditions are"
        told = f"{whose} beyond the right edge (→), up to {theme.number(float(far[damage].max()))}"
        figure.update_layout(title_subtitle_text=f"{figure.layout.title.subtitle.text}<br>{told}", margin_t=102)
    x: list[float] = []
    y: list[float] = []
    symbols: list[str] = []
    for column, window, shapes in (
        (damage, across, ("triangle-left", "triangle-right")),
        (effect, up, ("triangle-down", "triangle-up")),
    ):
        for (cut, edge), shape in zip(window.cut(*_limits(data, column)), shapes, strict=True):
            x += [edge] * int(cut.sum()) if column == damage else data[damage][cut].tolist()
            y += [edge] * int(cut.sum()) if column == effect else data[effect][cut].tolist()
            symbols += [shape] * int(cut.sum())
    if symbols:
        marker = {"symbol": symbols, "size": 7, "color": theme.BASELINE}
        named = "interval goes on<br>beyond the frame"
        figure.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=marker, name=named, hoverinfo="skip"))


_SHAPES = {"random": "-open", "shuffled": "-dot", "negated": "-open-dot"}
_NAMES = {"random": ", random vector", "shuffled": ", shuffled contrast", "negated": ", negated vector"}


def _condition_traces(
    points: pd.DataFrame,
    effect: str,
    damage: str,
    hover: Callable[[pd.Series], str],
    across: Window,
    up: Window,
    *,
    first_layer: float,
) -> list[go.Scatter]:
    """The steered conditions and their controls, one trace for each coefficient, and a legend of their shapes."""
    coefficients = sorted(points["coeff"].unique())
    shapes = dict(zip(coefficients, itertools.cycle(theme.SYMBOLS), strict=False))
    many = len(coefficients) > len(theme.SYMBOLS)
    traces = []
    for (coeff, role), group in points.groupby(["coeff", "role"], sort=True):
        shape = "circle" if many else shapes[coeff]
        shape += _SHAPES.get(str(role), "")
        drawn = group.assign(**{damage: across.inside(group[damage])})
        for name, window in ((damage, across), (effect, up)):
            low, high = _limits(group, name)
            drawn = drawn.assign(**{f"{name}_low": window.inside(low), f"{name}_high": window.inside(high)})
        traces.append(
            go.Scatter(
                x=drawn[damage],
                y=group[effect],
                mode="markers",
                showlegend=False,
                marker={
                    "symbol": shape,
                    "size": np.where(group["front"], 12, 8),
                    "color": group["layer"].fillna(first_layer),
                    "coloraxis": "coloraxis",
                    "opacity": 0.95,
                    "line": {"width": np.where(group["front"], 2, 0.5), "color": theme.INK},
                },
                error_x=error_bars(drawn, damage),
                error_y=error_bars(drawn, effect),
                customdata=condition_numbers(group),
                hovertext=[hover(row) for _, row in group.iterrows()],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
        if not many:  # the points take the colour of their layer, so the legend needs a mark of its own
            mark = {"symbol": shape, "size": 10, "color": theme.INK}
            named = theme.number(coeff) + _NAMES.get(str(role), "")
            traces.append(go.Scatter(x=[None], y=[None], mode="markers", marker=mark, name=named))
    return traces


def _layer_colours(first: float, last: float) -> dict[str, Any]:
    """The colour axis of layers, its bar below the figure."""
    return {
        "colorscale": theme.ORDERED,
        "cmin": first,
        "cmax": max(last, first + 1),
        "colorbar": {
            "title": {"text": "layer", "side": "bottom"},
            "tickformat": "d",
            "orientation": "h",
            "len": 0.5,
            "x": 0,
            "xanchor": "left",
            "y": -0.2,
            "yanchor": "top",
        },
    }


def _damage_hover(row: pd.Series, effect: str, damage: str, x_title: str, y_title: str) -> str:
    parts = [f"<b>{theme.escape(row['label'])}</b>"]
    if not np.isnan(row["layer"]):
        parts.append(f"layer {row['layer']:.0f}, coefficient {theme.number(row['coeff'])}")
    for title, column in ((y_title, effect), (x_title, damage)):
        low, high = row.get(f"{column}_low", np.nan), row.get(f"{column}_high", np.nan)
        limits = "" if pd.isna(low) or pd.isna(high) else f" (95 %: {theme.number(low)} to {theme.number(high)})"
        parts.append(f"{theme.escape(title)}: {theme.number(row[column])}{limits}")
    if row["front"]:
        parts.append("on the Pareto front")
    return "<br>".join(parts)
