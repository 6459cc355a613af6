"""Figure of a sweep over layer and coefficient: a heat map of one metric."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import choose, condition_numbers, control, one_each, require, roles, steered
from steerlens.figures.intervals import axis_title, tick_format, value_lines, value_text


def layer_coefficient_heatmap(
    summary: pd.DataFrame,
    *,
    metric: str | None = None,
    role: Literal["steered", "random", "shuffled", "negated"] = "steered",
    title: str | None = None,
) -> go.Figure:
    """Heat map of one metric over layer (across) and coefficient (up), its value in each cell where there is room.

    `summary` as for `layer_sweep`, one placement; `role=` draws controls instead. The baseline, if
    there, is the row of coefficient 0: the same at every layer, being no injection at all. NaN means are empty cells.
    Raises SteerlensError for missing columns, 0 rows, no steered row with a layer, several metrics without `metric=`,
    or two rows for one cell.
    """
    name = "layer_coefficient_heatmap"
    frame = require(summary, name, text=["metric", "kind"], numbers=["coeff"], gaps=["layer", "mean", "low", "high"])
    frame = choose(frame, name, "metric", metric)
    mask = steered(frame)
    wanted = mask & ~control(frame) if role == "steered" else roles(frame) == role
    cells, base = frame[wanted & frame["layer"].notna()], frame[~mask]
    if cells.empty:
        raise SteerlensError(f"{name}: no {role} row has a layer; a heat map needs conditions at single layers")
    one_each(cells, name, ["layer", "coeff"])
    kind, one = cells["kind"].iloc[0], cells["metric"].iloc[0]
    grid = cells.pivot(index="coeff", columns="layer", values="mean")
    labels = {coeff: theme.number(coeff) for coeff in grid.index}
    if len(base) and 0.0 not in grid.index:
        grid.loc[0.0] = base["mean"].iloc[0]
        labels[0.0] = "0 (unsteered)"
    grid = grid.sort_index().reindex(columns=np.arange(cells["layer"].min(), cells["layer"].max() + 1))
    limits = {(row.coeff, row.layer): row for row in cells.itertuples()}
    hover = [
        [_cell_hover(coeff, layer, grid.at[coeff, layer], limits.get((coeff, layer)), kind) for layer in grid.columns]
        for coeff in grid.index
    ]
    numbers = None
    if condition_numbers(frame) is not None:
        known = {place: int(row.condition) for place, row in limits.items()}
        still = int(base["condition"].iloc[0]) if len(base) else None
        numbers = [
            [known.get((coeff, layer), still if coeff == 0 else None) for layer in grid.columns] for coeff in grid.index
        ]
    short = [[_short_value(value, kind) for value in row] for row in grid.to_numpy()]
    figure = theme.new_figure(title or f"{one} by layer and coefficient", height=200 + 46 * len(grid))
    figure.add_trace(
        go.Heatmap(
            z=grid.to_numpy(),
            x=grid.columns.to_numpy(),
            y=np.arange(len(grid)),
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            text=short if grid.shape[1] <= 20 else None,
            texttemplate="%{text}" if grid.shape[1] <= 20 else None,
            textfont={"size": 12},
            hoverongaps=False,
            customdata=numbers,
            xgap=2 if grid.shape[1] <= 40 else 1,
            ygap=2,
            coloraxis="coloraxis",
        )
    )
    signed = kind != "share" and bool(np.nanmin(grid.to_numpy()) < 0)
    figure.update_layout(
        coloraxis={
            "colorscale": theme.DIVERGING if signed else theme.SEQUENTIAL,
            "cmid": 0 if signed else None,
            "cmin": None if signed else min(0.0, float(np.nanmin(grid.to_numpy()))),
            # Where all is 0 there is no range to take, and plotly's own would have a share reach from −50 % to 50 %.
            "cmax": None if signed or np.nanmax(grid.to_numpy()) > 0 else 1.0,
            "colorbar": {"title": {"text": theme.escape(axis_title(one, kind))}, **tick_format(kind)},
        }
    )
    figure.update_xaxes(title_text="layer whose input is steered", showline=False, ticks="")
    figure.update_xaxes(**theme.layer_ticks([int(layer) for layer in grid.columns]))
    figure.update_yaxes(
        title_text="coefficient",
        tickvals=list(range(len(grid))),
        ticktext=[labels[coeff] for coeff in grid.index],
        showgrid=False,
    )
    return figure


def _short_value(value: float, kind: str) -> str:
    if np.isnan(value):
        return ""
    return f"{100 * value:.0f}" if kind == "share" else theme.number(value, 2)


def _cell_hover(coeff: float, layer: float, mean: float, entry: Any, kind: str) -> str:
    if entry is None:
        return f"<b>unsteered</b><br><b>{value_text(mean, kind)}</b>" if not np.isnan(mean) else ""
    head = f"<b>layer {layer:.0f}, coefficient {theme.number(coeff)}</b>"
    return "<br>".join([head, *value_lines(entry, kind)])
