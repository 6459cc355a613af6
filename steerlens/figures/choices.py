"""Figure of one measure under several choices that have no natural scale, such as placements."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import condition_numbers, one_each, require
from steerlens.figures.intervals import axis_title, value_text

_BESIDE = 12  # choices whose labels have room beside each other; those of more are slanted


def effect_by_choice(
    summary: pd.DataFrame,
    *,
    choice_title: str = "choice",
    title: str | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Points with 95 % intervals, one per choice, in the order of the frame; the unsteered baseline a dashed line.

    `summary`, one row per choice: choice (str; "unsteered" is the baseline), metric (str, one only), kind (unit), mean,
    low, high (NaN: no interval); optional condition (its number). `names`: tokens that stand on the axis with the
    choices they belong to. Raises SteerlensError for missing columns, 0 rows, or two rows for one choice.
    """
    name = "effect_by_choice"
    data = require(summary, name, text=["choice", "metric", "kind"], numbers=["mean"], gaps=["low", "high"])
    one_each(data, name, ["choice"])
    metric, kind = data["metric"].iloc[0], data["kind"].iloc[0]
    base, own = data[data["choice"] == "unsteered"], data[data["choice"] != "unsteered"].reset_index(drop=True)
    limits = own["low"].notna() & own["high"].notna()
    figure = theme.new_figure(
        title or f"{metric} by {choice_title}", "95 % intervals" if limits.any() else None, height=430
    )
    places = list(range(len(own)))
    for row in base.itertuples():
        figure.add_hline(y=row.mean, line={"color": theme.BASELINE, "width": 2, "dash": "dash"})
    figure.add_trace(
        go.Scatter(
            x=places,
            y=own["mean"],
            mode="markers",
            marker={"size": 10, "color": theme.BLUE},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (own["high"] - own["mean"]).where(limits, 0.0),
                "arrayminus": (own["mean"] - own["low"]).where(limits, 0.0),
                "thickness": 1.5,
                "width": 0,
                "color": theme.see_through(theme.BLUE, 0.5),
            },
            customdata=condition_numbers(own),
            hovertext=[_hover(row, kind) for row in own.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(
        title_text=theme.escape(choice_title),
        tickvals=places,
        ticktext=[_tick(choice, names or {}, alone=len(own) <= _BESIDE) for choice in own["choice"]],
        tickangle=0 if len(own) <= _BESIDE else -60,
        range=[-0.6, len(own) - 0.4],
        showgrid=False,
    )
    figure.update_yaxes(title_text=theme.escape(axis_title(metric, kind)), zeroline=True)
    return figure


def _tick(choice: str, names: Mapping[str, str], *, alone: bool) -> str:
    """The choice with its token below it, or beside it where there is no room for two lines."""
    token = theme.token_label(names[choice], limit=12) if choice in names else ""
    return theme.escape(choice) + (("<br>" if alone else " ") + token if token else "")


def _hover(row: object, kind: str) -> str:
    parts = [f"<b>{theme.escape(row.choice)}</b>", f"<b>{value_text(row.mean, kind)}</b>"]  # type: ignore[attr-defined]
    if row.low == row.low:  # type: ignore[attr-defined]
        low, high = value_text(row.low, kind), value_text(row.high, kind)  # type: ignore[attr-defined]
        parts.append(f"95 %: {low} to {high}")
    return "<br>".join(parts)
