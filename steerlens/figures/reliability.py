"""Figure of reliability: every prompt, none of them hidden in a mean."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import require

# More thin lines are drawn as one trace each way, which stays quick; beyond this many they are sampled evenly.
_MOST_LINES = 400


def every_prompt(
    values: pd.DataFrame, prompts: pd.DataFrame, *, measure: str = "value", title: str | None = None
) -> go.Figure:
    """Two panels: each prompt's value over the coefficient (thin lines, their mean thick), and all slopes in order.

    `values`: number, coeff, value (of one direction; samples are averaged). `prompts`, one row per prompt: number,
    prompt, split, slope, wrong, and optional slope_low, slope_high. Prompts that are steered the wrong way are orange,
    held-out ones diamonds. Lines begin at their value at coefficient 0, so that they show what steering changed.
    Raises SteerlensError for missing columns and 0 rows.
    """
    name = "every_prompt"
    data = require(values, name, numbers=["number", "coeff"], gaps=["value"])
    rows = require(prompts, name, text=["prompt", "split"], numbers=["number"], gaps=["slope"])
    rows = rows[rows["slope"].notna()].sort_values("slope", ignore_index=True)
    wrong = rows["wrong"].astype(bool)
    share = f"{wrong.sum()} of {len(rows)} steered the wrong way"
    figure = theme.new_figure(title or "Every prompt", f"{len(rows)} prompts, {share}", height=480)
    figure.set_subplots(rows=1, cols=2, column_widths=[0.5, 0.5], horizontal_spacing=0.14)
    table = data.pivot_table(index="number", columns="coeff", values="value", aggfunc="mean")
    if 0.0 in table.columns:
        table = table.sub(table[0.0], axis=0)
    for is_wrong, colour, called in (
        (False, theme.BLUE, "steered as wanted"),
        (True, theme.ORANGE_RED, "the wrong way"),
    ):
        mine = rows[wrong == is_wrong]
        if mine.empty:
            continue
        shown = mine.iloc[np.unique(np.linspace(0, len(mine) - 1, min(len(mine), _MOST_LINES)).astype(int))]
        lines = table.reindex(shown["number"])
        gap = np.full((len(lines), 1), np.nan)  # lines of one trace are parted by gaps
        x = np.concatenate([np.tile(table.columns.to_numpy(dtype=float), (len(lines), 1)), gap], axis=1)
        y = np.concatenate([lines.to_numpy(dtype=float), gap], axis=1)
        figure.add_trace(
            go.Scatter(
                x=x.ravel(),
                y=y.ravel(),
                mode="lines",
                name=called,
                legendgroup=called,
                # Few lines must be seen on any page, many must not become a slab.
                line={"color": theme.see_through(colour, 0.7 if len(rows) <= 40 else 0.35), "width": 1},
                hoverinfo="skip",
            ),
            row=1,
            col=1,
        )
        figure.add_trace(_slopes(mine, colour, called), row=1, col=2)
    figure.add_trace(
        go.Scatter(
            x=table.columns.to_numpy(dtype=float),
            y=table.mean().to_numpy(),
            mode="lines+markers",
            name="mean",
            line={"color": theme.INK, "width": 3},
        ),
        row=1,
        col=1,
    )
    figure.add_hline(y=0, line={"color": theme.BASELINE, "width": 1.5, "dash": "dash"}, row=1, col=2)
    figure.update_xaxes(title_text="coefficient", row=1, col=1)
    figure.update_yaxes(title_text=theme.escape(f"change of {measure}"), row=1, col=1)
    figure.update_xaxes(title_text="prompts in order of their slope", row=1, col=2)
    figure.update_yaxes(title_text=theme.escape(f"slope ({measure} per coefficient)"), row=1, col=2)
    return figure


def _slopes(mine: pd.DataFrame, colour: str, called: str) -> go.Scatter:
    """The slopes of some prompts, at their places in the order of all."""
    bars = None
    if "slope_low" in mine.columns and mine["slope_low"].notna().any():
        bars = {
            "type": "data",
            "symmetric": False,
            "array": (mine["slope_high"] - mine["slope"]).fillna(0.0),
            "arrayminus": (mine["slope"] - mine["slope_low"]).fillna(0.0),
            "thickness": 1,
            "width": 0,
            "color": theme.see_through(colour, 0.4),
        }
    return go.Scatter(
        x=mine.index.to_numpy(),
        y=mine["slope"],
        mode="markers",
        name=called,
        legendgroup=called,
        showlegend=False,
        error_y=bars,
        marker={
            "color": colour,
            "size": 7,
            "symbol": np.where(mine["split"] == "held out", "diamond-open", "circle"),
        },
        hovertext=[
            f"<b>{theme.escape(theme.shorten(row.prompt))}</b><br>{row.split}<br>slope {theme.number(row.slope)}"
            for row in mine.itertuples()
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
