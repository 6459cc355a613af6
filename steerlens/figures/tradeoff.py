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
from steerlens.figures.columns import require, roles
from steerlens.figures.intervals import error_bars
from steerlens.measures.statistics import pareto_front


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
    baseline, a star prompting, open and dotted shapes other controls (optional column role). Rows with NaN in effect or
    damage are left out. Raises SteerlensError for missing columns, 0 rows, or nothing left.
    """
    name = "effect_against_damage"
    data = require(frame, name, text=["label"], numbers=["coeff"], gaps=["layer", effect, damage])
    data = data[data[effect].notna() & data[damage].notna()].reset_index(drop=True)
    if data.empty:
        raise SteerlensError(f"{name}: every row has NaN in {effect!r} or {damage!r}; nothing is left to draw")
    data["front"] = pareto_front(data[effect] * (1 if better == "higher" else -1), data[damage])
    data["role"] = roles(data)
    x_title, y_title = damage_title or damage, effect_title or effect
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
    figure.add_traces(_condition_traces(points, effect, damage, hover, first_layer=layers[0]))
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
                    hovertext=[hover(row) for _, row in base.iterrows()],
                    hovertemplate="%{hovertext}<extra></extra>",
                )
            )
    figure.update_layout(coloraxis=_layer_colours(*layers), legend={"title": {"text": "coefficient"}}, margin_b=150)
    figure.update_xaxes(title_text=theme.escape(x_title), showgrid=True)
    figure.update_yaxes(title_text=theme.escape(y_title))
    return figure


_SHAPES = {"random": "-open", "shuffled": "-dot", "negated": "-open-dot"}
_NAMES = {"random": ", random vector", "shuffled": ", shuffled contrast", "negated": ", negated vector"}


def _condition_traces(
    points: pd.DataFrame, effect: str, damage: str, hover: Callable[[pd.Series], str], *, first_layer: float
) -> list[go.Scatter]:
    """The steered conditions and their controls, one trace for each coefficient, and a legend of their shapes."""
    coefficients = sorted(points["coeff"].unique())
    shapes = dict(zip(coefficients, itertools.cycle(theme.SYMBOLS), strict=False))
    many = len(coefficients) > len(theme.SYMBOLS)
    traces = []
    for (coeff, role), group in points.groupby(["coeff", "role"], sort=True):
        shape = "circle" if many else shapes[coeff]
        shape += _SHAPES.get(str(role), "")
        traces.append(
            go.Scatter(
                x=group[damage],
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
                error_x=error_bars(group, damage),
                error_y=error_bars(group, effect),
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
    parts += [f"{theme.escape(title)}: {theme.number(row[column])}"
              for title, column in ((y_title, effect), (x_title, damage))]  # fmt: skip
    if row["front"]:
        parts.append("on the Pareto front")
    return "<br>".join(parts)
