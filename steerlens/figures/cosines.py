"""Figure of alignment: the cosine of every two vectors."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import one_each, require

_WRITTEN = 12  # vectors, at most, whose cells hold their number
_LABELLED = 26


def cosine_heatmap(frame: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Heat map of the cosines of every two vectors, in the order in which they first come; both halves are filled.

    `frame`, one row per two vectors, as `Magnitudes.cosines`: series_a, layer_a, series_b, layer_b, cosine (−1 to 1;
    NaN is an empty cell). Vectors of one series are labelled by their layer alone. Raises SteerlensError for missing
    columns, 0 rows, or two rows for one cell.
    """
    name = "cosine_heatmap"
    sides = (["series_a", "layer_a"], ["series_b", "layer_b"])
    data = require(frame, name, text=["series_a", "series_b"], numbers=["layer_a", "layer_b"], gaps=["cosine"])
    one_each(data, name, [*sides[0], *sides[1]])
    ends = [list(data[side].itertuples(index=False, name=None)) for side in sides]
    order = list(dict.fromkeys(end for pair in zip(*ends, strict=True) for end in pair))
    place = {end: i for i, end in enumerate(order)}
    grid = np.full((len(order), len(order)), np.nan)
    for a, b, cosine in zip(*ends, data["cosine"], strict=True):
        grid[place[a], place[b]] = grid[place[b], place[a]] = cosine
    one_series = len({series for series, _ in order}) == 1
    short = [f"{layer:.0f}" if one_series else f"{theme.shorten(series, 24)}, {layer:.0f}" for series, layer in order]
    full = [f"{theme.escape(series)}, layer {layer:.0f}" for series, layer in order]
    hover = [
        [f"{full[i]}<br>{full[j]}<br>cosine <b>{theme.number(grid[i, j])}</b>" for j in range(len(order))]
        for i in range(len(order))
    ]
    figure = theme.new_figure(
        title or "Cosines between vectors",
        order[0][0] if one_series else None,
        height=int(np.clip(190 + 30 * len(order), 360, 760)),
    )
    figure.add_trace(
        go.Heatmap(
            z=grid,
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            texttemplate="%{z:.2f}" if len(order) <= _WRITTEN else None,
            hoverongaps=False,
            xgap=1,
            ygap=1,
            coloraxis="coloraxis",
        )
    )
    figure.update_layout(
        coloraxis={"colorscale": theme.DIVERGING, "cmin": -1, "cmax": 1, "colorbar": {"title": {"text": "cosine"}}}
    )
    step = 1 if len(order) <= _LABELLED else 5 if len(order) <= 60 else 10
    ticks = {
        "tickvals": list(range(0, len(order), step)),
        "ticktext": [theme.escape(label) for label in short[::step]],
        "title_text": "layer whose input the vector is of" if one_series else "vector, layer",
        "showgrid": False,
        "showline": False,
        "ticks": "",
    }
    figure.update_xaxes(**ticks)
    figure.update_yaxes(**ticks, autorange="reversed")
    return figure
