"""Figure of the gallery: for each example, how many completions show the effect, by condition."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import require
from steerlens.figures.intervals import error_bars

_LOOKS = {
    "unsteered": (theme.BASELINE, "circle", -0.22),
    "steered": (theme.BLUE, "diamond", 0.0),
    "random": (theme.ORANGE, "x", 0.22),
}
_NAMES = {"random": "random vector"}


def effect_by_example(summary: pd.DataFrame, *, title: str = "Completions that show the effect") -> go.Figure:
    """Share of completions with any of the example's words, one line per example, three conditions, 95 % intervals.

    `summary` as `Gallery.summary`: number, example, verdict, role, n, share, low, high.
    """
    data = require(
        summary,
        "effect_by_example",
        text=["number", "example", "verdict", "role"],
        numbers=["n", "share", "low", "high"],
    )
    names = list(data["example"].drop_duplicates())
    place = {name: len(names) - 1 - i for i, name in enumerate(names)}
    figure = theme.new_figure(
        title, f"95 % intervals, {int(data['n'].iloc[0])} completions per point", height=150 + 34 * len(names)
    )
    for role, (colour, symbol, offset) in _LOOKS.items():
        rows = data[data["role"] == role]
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=rows["share"],
                y=[place[name] - offset for name in rows["example"]],
                mode="markers",
                name=_NAMES.get(role, role),
                marker={"size": 9, "color": colour, "symbol": symbol},
                error_x=error_bars(
                    rows,
                    "share",
                    "low",
                    "high",
                    colour=theme.see_through(colour, 0.55) if colour.startswith("#") else colour,
                ),
                hovertext=[
                    f"<b>{theme.escape(row.example)}</b>, {_NAMES.get(role, role)}<br>"
                    f"<b>{theme.percent(row.share)}</b> (95 %: {theme.percent(row.low)} to {theme.percent(row.high)})"
                    for row in rows.itertuples()
                ],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    failed = set(data.loc[data["verdict"] == "fails", "example"])
    labels = [f"{theme.escape(name)}{' (failed in the post)' if name in failed else ''}" for name in names]
    figure.update_yaxes(
        tickvals=[place[name] for name in names], ticktext=labels, range=[-0.6, len(names) - 0.4], showgrid=False
    )
    figure.update_xaxes(
        tickformat=",.0%", range=[-0.02, 1.02], showgrid=True, title_text="completions with any of the words"
    )
    return figure
