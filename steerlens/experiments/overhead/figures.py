"""Figure of the experiment `overhead`: the premium against the size of the model."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import require
from steerlens.figures.intervals import error_bars


def premium_by_size(frame: pd.DataFrame, times: pd.DataFrame, *, title: str = "Time that steering adds") -> go.Figure:
    """Premium against the number of parameters, one point with its 95 % interval per model, the seeds as small points.

    `frame` and `times` as in `Overhead`. Two kinds: with the extraction of the vector, as in the paper, and without.
    """
    data = require(
        frame,
        "premium_by_size",
        text=["model"],
        numbers=["parameters", "premium", "premium_forward"],
        gaps=["low", "high", "forward_low", "forward_high"],
    )
    several = data["parameters"].nunique() > 1
    counts = f"{int(frame['seeds'].iloc[0])} seeds × {int(frame['forwards'].iloc[0])} passes of each kind"
    figure = theme.new_figure(title, f"{counts}; 95 % intervals", height=420)
    figure.add_hline(y=0, line={"color": theme.BASELINE, "width": 2, "dash": "dash"})
    # Numbers across rather than sizes where there is one model only: a logarithmic axis with one place has no scale.
    place = {model: size if several else 0.0 for model, size in zip(data["model"], data["parameters"], strict=True)}
    kinds = (
        ("with extraction, as in the paper", "premium", "low", "high", theme.BLUE, "circle", -1),
        ("without extraction", "premium_forward", "forward_low", "forward_high", theme.ORANGE_RED, "square", 1),
    )
    for name, column, low, high, colour, symbol, side in kinds:
        extra = times["extraction"] if column == "premium" else 0.0
        seeds = (times["steered"] + extra) / times["base"] - 1
        figure.add_trace(
            go.Scatter(
                x=[_beside(place[model], side, several) for model in times["model"]],
                y=seeds,
                mode="markers",
                marker={"size": 5, "color": theme.see_through(colour, 0.45), "symbol": symbol},
                hovertext=[
                    f"{theme.escape(model)}, seed {seed}<br>{value:+.2%}"
                    for model, seed, value in zip(times["model"], times["seed"], seeds, strict=True)
                ],
                hovertemplate="%{hovertext}<extra></extra>",
                legendgroup=name,
                showlegend=False,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[_beside(place[model], side, several) for model in data["model"]],
                y=data[column],
                mode="markers+text" if column == "premium" and several else "markers",
                text=[theme.escape(model) for model in data["model"]],
                textposition="top center",
                name=name,
                legendgroup=name,
                marker={"size": 11, "color": colour, "symbol": symbol},
                error_y=error_bars(data, column, low, high, colour=colour),
                hovertext=[
                    f"<b>{theme.escape(row.model)}</b>, {row.parameters / 1e6:,.1f} M parameters<br>"
                    f"<b>{getattr(row, column):+.2%}</b> (95 %: {getattr(row, low):+.2%} to {getattr(row, high):+.2%})"
                    for row in data.itertuples()
                ],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.update_yaxes(title_text="premium", tickformat="+.1%", zeroline=False)
    if several:
        figure.update_xaxes(type="log", title_text="parameters")
    else:
        only = data.iloc[0]
        label = f"{theme.escape(only['model'])}, {only['parameters'] / 1e6:,.1f} M parameters"
        figure.update_xaxes(range=[-1, 1], tickvals=[0], ticktext=[label], title_text=None)
    return figure


def _beside(place: float, side: int, several: bool) -> float:
    """The two kinds side by side, so that neither hides the other."""
    return place * 1.03**side if several else place + 0.2 * side
