"""Figure of the experiment `topic` for several topics: which layer moves which topic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import one_each, require


def topics_by_layer(rows: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Heat map of the share of completions with a related word: topics down, layers across, one coefficient.

    `rows`, one per topic and layer: topic, layer, coeff (one value), mean, low, high (shares).
    """
    name = "topics_by_layer"
    data = require(rows, name, text=["topic"], numbers=["layer", "coeff", "mean"], gaps=["low", "high"])
    one_each(data, name, ["topic", "layer"])
    topics = list(data["topic"].drop_duplicates())[::-1]  # the first on top
    layers = np.arange(data["layer"].min(), data["layer"].max() + 1)
    grid = data.pivot(index="topic", columns="layer", values="mean").reindex(index=topics, columns=layers)
    known = {(row.topic, row.layer): row for row in data.itertuples()}
    hover = [[_hover(known.get((topic, layer))) for layer in layers] for topic in topics]
    few = len(layers) <= 20
    coeff = theme.number(data["coeff"].iloc[0])
    figure = theme.new_figure(title or f"All topics at coefficient {coeff}", height=180 + 40 * len(topics))
    figure.add_trace(
        go.Heatmap(
            z=grid.to_numpy(),
            x=layers,
            y=[theme.escape(topic) for topic in topics],
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            text=[[f"{100 * share:.0f}" if share == share else "" for share in row] for row in grid.to_numpy()],
            texttemplate="%{text}" if few else None,
            textfont={"size": 12},
            hoverongaps=False,
            xgap=2 if len(layers) <= 40 else 1,
            ygap=2,
            coloraxis="coloraxis",
        )
    )
    bar = {"title": {"text": "completions with a related word"}, "tickformat": ",.0%"}
    figure.update_layout(coloraxis={"colorscale": theme.SEQUENTIAL, "cmin": 0, "colorbar": bar})
    figure.update_xaxes(title_text="layer whose input is steered", showline=False, ticks="")
    figure.update_xaxes(**theme.layer_ticks([int(layer) for layer in layers]))
    figure.update_yaxes(showgrid=False)
    return figure


def _hover(row: object) -> str:
    if row is None:
        return ""
    share, low, high = (theme.percent(getattr(row, column)) for column in ("mean", "low", "high"))
    head = f"<b>{theme.escape(row.topic)}, layer {row.layer:.0f}</b>"  # type: ignore[attr-defined]
    return f"{head}<br><b>{share}</b> (95 %: {low} to {high})"
