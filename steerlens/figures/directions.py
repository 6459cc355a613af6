"""Figure of directions: how well each method tells two classes apart at each layer, and how its vectors align."""

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import one_each, require


def directions_by_layer(frame: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Two panels over the layers, one line per method: held-out AUC, and the cosine with the mean difference.

    `frame`, one row per method × layer, as `Directions.frame`: method, layer, auc (0 to 1), cosine (−1 to 1; NaN is a
    gap). The faint line is chance. Raises SteerlensError for missing columns, 0 rows, or two rows for one place.
    """
    name = "directions_by_layer"
    data = require(frame, name, text=["method"], numbers=["layer", "auc"], gaps=["cosine"])
    one_each(data, name, ["method", "layer"])
    methods = list(data["method"].drop_duplicates())
    figure = theme.new_figure(title or "Directions by layer", "AUC on held-out texts; the faint line is chance")
    figure.set_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    figure.add_hline(y=0.5, line={"color": "rgba(120,120,120,0.5)", "width": 1.25, "dash": "dot"}, row=1, col=1)
    for method, colour in zip(methods, theme.line_colours(len(methods)), strict=True):
        own = data[data["method"] == method].sort_values("layer")
        for column, value in ((1, "auc"), (2, "cosine")):
            figure.add_trace(
                go.Scatter(
                    x=own["layer"],
                    y=own[value],
                    mode="lines+markers",
                    name=theme.escape(method),
                    legendgroup=method,
                    showlegend=column == 1,
                    line={"color": colour, "width": 2},
                    hovertemplate=f"{theme.escape(method)}, layer %{{x}}<br>{value} <b>%{{y:.3f}}</b><extra></extra>",
                ),
                row=1,
                col=column,
            )
    figure.update_xaxes(title_text="layer whose input is read")
    figure.update_yaxes(
        title_text="held-out AUC", range=[min(0.4, float(data["auc"].min()) - 0.05), 1.03], row=1, col=1
    )
    figure.update_yaxes(title_text="cosine with the mean difference", range=[-1.03, 1.03], row=1, col=2)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"}, margin_b=90)
    return figure
