"""Figures of the experiment `knowledge`: P@K against K, and its change from the unsteered model."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import require
from steerlens.figures.intervals import error_bars, interval_band


def precision_by_k(frame: pd.DataFrame, *, title: str = "P@K, unsteered and steered") -> go.Figure:
    """P@K against K on a logarithmic axis: a line per condition, the unsteered one grey and dashed, random ones dotted.

    `frame` as `Knowledge.frame`: label, role, coeff, k, n, p_at_k, low, high (drawn as a band for steered conditions).
    """
    data = require(
        frame, "precision_by_k", text=["role"], numbers=["condition", "coeff", "k"], gaps=["p_at_k", "low", "high"]
    )
    figure = theme.new_figure(title, _subtitle(frame), height=440)
    for name, rows, style in _lines(data):
        hover = [
            f"<b>{name}</b><br>P@{row.k:.0f} = <b>{theme.percent(row.p_at_k)}</b> "
            f"(95 %: {theme.percent(row.low)} to {theme.percent(row.high)})"
            for row in rows.itertuples()
        ]
        _draw_line(figure, name, rows, style, ("p_at_k", "low", "high"), hover)
    figure.update_layout(legend={"title": {"text": "coefficient"}})
    figure.update_xaxes(**_k_axis(data["k"]))
    figure.update_yaxes(title_text="P@K", tickformat=",.0%", rangemode="tozero")
    return figure


def change_by_k(frame: pd.DataFrame, *, title: str = "Change in P@K from the unsteered model") -> go.Figure:
    """Steered minus unsteered P@K in percentage points against K, with 95 % intervals; zero is the unsteered model.

    `frame` as `Knowledge.frame`: role, coeff, k, difference, difference_low, difference_high.
    """
    data = require(
        frame[frame["role"] != "unsteered"],
        "change_by_k",
        text=["role"],
        numbers=["condition", "coeff", "k"],
        gaps=["difference", "difference_low", "difference_high"],
    )
    for column in ("difference", "difference_low", "difference_high"):
        data[column] *= 100
    figure = theme.new_figure(title, _subtitle(frame), height=400)
    figure.add_hline(y=0, line={"color": theme.BASELINE, "width": 2, "dash": "dash"})
    for name, rows, style in _lines(data):
        hover = [
            f"<b>{name}</b>, K = {row.k:.0f}<br><b>{_signed(row.difference)} points</b> "
            f"(95 %: {_signed(row.difference_low)} to {_signed(row.difference_high)})"
            for row in rows.itertuples()
        ]
        _draw_line(figure, name, rows, style, ("difference", "difference_low", "difference_high"), hover)
    figure.update_layout(legend={"title": {"text": "coefficient"}})
    figure.update_xaxes(**_k_axis(data["k"]))
    figure.update_yaxes(title_text="change in P@K (percentage points)", zeroline=False)
    return figure


def change_by_relation(relations: pd.DataFrame, *, k: int, title: str | None = None) -> go.Figure:
    """Change in P@K by relation, in percentage points, with 95 % intervals, largest loss at the bottom.

    `relations` as `Knowledge.by_relation`: relation, n, unsteered, steered, difference, low, high.
    """
    data = require(
        relations,
        "change_by_relation",
        text=["relation"],
        numbers=["n", "unsteered"],
        gaps=["steered", "difference", "low", "high"],
    ).sort_values("difference")
    for column in ("difference", "low", "high"):
        data[column] *= 100
    figure = theme.new_figure(title or f"Change in P@{k} by relation", "95 % intervals", height=150 + 24 * len(data))
    figure.add_vline(x=0, line={"color": theme.BASELINE, "width": 2, "dash": "dash"})
    figure.add_trace(
        go.Scatter(
            x=data["difference"],
            y=[theme.escape(relation) for relation in data["relation"]],
            mode="markers",
            marker={"size": 9, "color": theme.BLUE},
            error_x=error_bars(data, "difference", "low", "high", colour=theme.see_through(theme.BLUE, 0.5)),
            hovertext=[
                f"<b>{theme.escape(row.relation)}</b>, n = {row.n:.0f}<br>{theme.percent(row.unsteered)} to "
                f"{theme.percent(row.steered)}: <b>{_signed(row.difference)} points</b> "
                f"(95 %: {_signed(row.low)} to {_signed(row.high)})"
                for row in data.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(title_text=f"change in P@{k} (percentage points)", showgrid=True)
    figure.update_yaxes(showgrid=False)
    return figure


def _draw_line(
    figure: go.Figure,
    name: str,
    rows: pd.DataFrame,
    style: dict[str, Any],
    columns: tuple[str, str, str],
    hover: list[str],
) -> None:
    """A condition's line against K; `columns`: the value, and the limits of its band where the style has one."""
    value, low, high = columns
    if style["band"]:
        figure.add_trace(_band(rows, low, high, style["colour"], name))
    figure.add_trace(
        go.Scatter(
            x=rows["k"],
            y=rows[value],
            mode="lines+markers" if style["band"] else "lines",
            name=name,
            legendgroup=name,
            line={"color": style["colour"], "width": style["width"], "dash": style["dash"]},
            marker={"size": 7, "symbol": style["symbol"]},
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )


def _lines(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame, dict[str, Any]]]:
    """Name, rows and look of every condition: a colour per coefficient, random vectors dotted in the same one."""
    coeffs = sorted(data.loc[data["role"] != "unsteered", "coeff"].unique())
    colours = dict(zip(coeffs, theme.line_colours(len(coeffs)), strict=True))
    symbols = {coeff: theme.SYMBOLS[i % len(theme.SYMBOLS)] for i, coeff in enumerate(coeffs)}
    found = []
    for _, rows in data.groupby("condition", sort=True):
        role, coeff = rows["role"].iloc[0], rows["coeff"].iloc[0]
        rows = rows.sort_values("k")
        if role == "unsteered":
            look = {"colour": theme.BASELINE, "dash": "dash", "width": 2, "band": False, "symbol": "circle"}
            found.append(("unsteered", rows, look))
            continue
        steered = role == "steered"
        look = {
            "colour": colours[coeff],
            "dash": "solid" if steered else "dot",
            "width": 2.5 if steered else 1.75,
            "band": steered,
            "symbol": symbols[coeff],
        }
        found.append((f"{theme.number(coeff)}{'' if steered else ', random vector'}", rows, look))
    return found


def _band(rows: pd.DataFrame, low: str, high: str, colour: str, name: str) -> go.Scatter:
    known = rows[rows[low].notna() & rows[high].notna()]
    return interval_band(known["k"], known[low], known[high], colour=colour, group=name)


def _k_axis(ks: pd.Series) -> dict[str, Any]:
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if ks.min() <= k <= ks.max()]
    return {
        "type": "log",
        "title_text": "K",
        "tickvals": ticks or sorted(ks.unique()),
        "ticktext": [f"{k:.0f}" for k in ticks or sorted(ks.unique())],
    }


def _subtitle(frame: pd.DataFrame) -> str:
    return f"95 % intervals, {int(frame['n'].iloc[0]):,} sentences"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
