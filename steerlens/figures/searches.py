"""Figure of a search: what was tried in which order, the best so far, and the front of effect against damage."""

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import condition_numbers, require
from steerlens.measures.statistics import pareto_front


def search_path(
    steps: pd.DataFrame, candidates: pd.DataFrame, *, goal: str = "on topic", title: str | None = None
) -> go.Figure:
    """Two panels: success against the tokens spent, with a line for the best so far; effect against surprise.

    `steps`, one row per setting and rung: spent, success, best_success, n, layer, strength (str). `candidates`, one row
    per setting: label (str), effect, surprise, n, layer. Optional in both: condition, its number. Larger points have
    more completions, colour is the layer; the line on the right joins settings that no other beats. Raises
    SteerlensError for missing columns or 0 rows.
    """
    name = "search_path"
    path = require(steps, name, text=["strength"], numbers=["spent", "success", "n", "layer"], gaps=["best_success"])
    points = require(candidates, name, text=["label"], numbers=["n", "layer"], gaps=["effect", "surprise"])
    points = points[points["effect"].notna() & points["surprise"].notna()]
    figure = theme.new_figure(
        title or "How the search got there",
        "a point is a setting after a rung of samples; larger: more of them",
        height=480,
    )
    figure.set_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    most = max(path["n"].max(), 1.0)
    colours = {"coloraxis": "coloraxis", "line": {"width": 0.5, "color": theme.INK}}
    figure.add_trace(
        go.Scatter(
            x=path["spent"],
            y=path["success"],
            mode="markers",
            name="settings",
            marker={"color": path["layer"], "size": 5 + 9 * (path["n"] / most) ** 0.5, **colours},
            customdata=condition_numbers(path),
            hovertext=[
                f"layer {row.layer:.0f}, {theme.escape(row.strength)}<br>"
                f"<b>{theme.percent(row.success)}</b> of {row.n:.0f}"
                for row in path.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=path["spent"],
            y=path["best_success"],
            mode="lines",
            name="best so far",
            line={"color": theme.ORANGE_RED, "width": 2, "shape": "hv"},
        ),
        row=1,
        col=1,
    )
    front = points[pareto_front(points["effect"], points["surprise"])].sort_values(["surprise", "effect"])
    figure.add_trace(
        go.Scatter(
            x=front["surprise"],
            y=front["effect"],
            mode="lines",
            name="front",
            line={"color": theme.BASELINE, "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
        ),
        row=1,
        col=2,
    )
    figure.add_trace(
        go.Scatter(
            x=points["surprise"],
            y=points["effect"],
            mode="markers",
            marker={"color": points["layer"], "size": 5 + 9 * (points["n"] / most) ** 0.5, **colours},
            customdata=condition_numbers(points),
            hovertext=[
                f"<b>{theme.escape(row.label)}</b><br>{theme.percent(row.effect)} on topic, "
                f"{theme.number(row.surprise)} nats per token, {row.n:.0f} completions"
                for row in points.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=2,
    )
    shares = {"tickformat": ",.0%", "range": [-0.03, 1.05]}
    figure.update_yaxes(title_text="on topic and fluent", row=1, col=1, **shares)
    figure.update_xaxes(title_text="tokens sampled", row=1, col=1, rangemode="tozero")
    figure.update_yaxes(title_text=theme.escape(goal), row=1, col=2, **shares)
    figure.update_xaxes(title_text="surprise (nats per token)", row=1, col=2)
    layers = path["layer"].min(), max(path["layer"].max(), path["layer"].min() + 1)
    bar = {"title": {"text": "layer"}, "tickformat": "d", "len": 0.7, "y": 0.35}
    figure.update_layout(coloraxis={"colorscale": theme.ORDERED, "cmin": layers[0], "cmax": layers[1], "colorbar": bar})
    return figure
