"""Figure of methods side by side: one panel per metric, one mark per group."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import one_each, require
from steerlens.figures.intervals import error_bars, value_lines


def methods_compared(
    summary: pd.DataFrame,
    *,
    group: str | None = None,
    title: str | None = None,
    axis_titles: dict[str, str] | None = None,
) -> go.Figure:
    """Points with 95 % intervals: methods from top to bottom, one panel per metric, groups told apart by colour.

    `summary`, one row per method × metric (× `group`): method (str), metric (str), kind, mean, low, high; optional n,
    layer, coeff for the hover text. The order of methods, metrics and groups is that of the frame. The first method
    (the baseline) has open marks, and a faint line through its mean. `axis_titles` names axes otherwise than by metric.
    Raises SteerlensError for missing columns, 0 rows, or two rows for one place.
    """
    name = "methods_compared"
    text = ["method", "metric", "kind", *([group] if group else [])]
    data = require(summary, name, text=text, numbers=["mean"], gaps=["low", "high"])
    one_each(data, name, [*([group] if group else []), "method", "metric"])
    methods, metrics = list(data["method"].drop_duplicates()), list(data["metric"].drop_duplicates())
    groups = list(data[group].drop_duplicates()) if group else [""]
    colours = dict(zip(groups, theme.line_colours(len(groups)), strict=True))
    figure = theme.new_figure(title or "Methods compared", "95 % intervals; the faint line is the unsteered model",
                              height=190 + len(methods) * (26 + 20 * len(groups)) + 30 * (len(groups) > 1))  # fmt: skip
    figure.set_subplots(rows=1, cols=len(metrics), shared_yaxes=True, horizontal_spacing=0.05)
    apart = 0.62 / max(len(groups), 2)
    for column, metric in enumerate(metrics, start=1):
        part = data[data["metric"] == metric]
        kind = part["kind"].iloc[0]
        for place, one in enumerate(groups):
            own = (part if group is None else part[part[group] == one]).set_index("method")
            own = own.reindex([method for method in methods if method in own.index])
            shift = (place - (len(groups) - 1) / 2) * apart
            heights = np.array([methods.index(method) for method in own.index]) + shift
            baseline = own.index == methods[0]
            figure.add_trace(
                go.Scatter(
                    x=own["mean"],
                    y=heights,
                    mode="markers",
                    name=theme.escape(one),
                    legendgroup=theme.escape(one),
                    showlegend=False,
                    marker={
                        "size": 10,
                        "symbol": np.where(
                            baseline, f"{theme.SYMBOLS[place % 6]}-open", theme.SYMBOLS[place % 6]
                        ).tolist(),
                        "color": colours[one],
                        "line": {"width": np.where(baseline, 2, 0).tolist(), "color": colours[one]},
                    },
                    error_x=error_bars(own, "mean", "low", "high", colour=theme.see_through(colours[one], 0.6)),
                    hovertext=[_hover(row, one, kind) for row in own.itertuples()],
                    hovertemplate="%{hovertext}<extra></extra>",
                ),
                row=1,
                col=column,
            )
            if baseline.any():  # after the marks: plotly draws no lines into empty panels
                figure.add_vline(
                    x=float(own["mean"][baseline].iloc[0]),
                    line={"color": theme.see_through(colours[one], 0.45), "width": 1.25, "dash": "dot"},
                    row=1,
                    col=column,
                )
        low, high = float(part[["mean", "low"]].min().min()), float(part[["mean", "high"]].max().max())
        room = 0.08 * (high - low or 1.0)
        axis = {"tickformat": ",.0%"} if kind == "share" else {}
        ends = [min(low - room, 0.0) if kind == "share" else low - room, high + room]
        figure.update_xaxes(
            title_text=theme.escape((axis_titles or {}).get(metric, metric)),
            range=ends, showgrid=True, nticks=6, row=1, col=column, **axis,
        )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(methods))),
        ticktext=[theme.escape(method) for method in methods],
        range=[len(methods) - 0.45, -0.55],
        showgrid=False,
        zeroline=False,
    )
    if group:
        for place, one in enumerate(groups):  # the marks above begin with the open one of the baseline
            mark = {"symbol": theme.SYMBOLS[place % 6], "size": 10, "color": colours[one]}
            named = theme.escape(one)
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=mark, name=named, legendgroup=named))
        # Below the panels: at the side it would take a fifth of their width.
        figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.32, "yanchor": "top"}, margin_b=110)
    return figure


def _hover(row: Any, group: str, kind: str) -> str:
    head = f"<b>{theme.escape(row.Index)}</b>" + (f"<br>{theme.escape(group)}" if group else "")
    layer = getattr(row, "layer", None)
    if layer is not None and not pd.isna(layer):
        head += f"<br>layer {int(layer)}, coefficient {theme.number(float(row.coeff))}"
    return "<br>".join([head, *value_lines(row, kind)])
