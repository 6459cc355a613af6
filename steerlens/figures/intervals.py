"""How a metric's values and intervals are written and drawn: per cent for shares, units, error bars."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme


def axis_title(metric: str, kind: str) -> str:
    """Name and unit of a metric's axis. Not escaped."""
    unit = {"share": "% of completions", "mean": "mean per completion"}.get(kind, kind)
    return f"{metric} ({unit})"


def value_text(value: float, kind: str) -> str:
    """A metric's value written by its kind: per cent for shares, else digits and the unit."""
    if kind == "share":
        return theme.percent(value)
    return theme.number(value) + ("" if kind == "mean" else f" {theme.escape(kind)}")


def value_lines(entry: Any, kind: str) -> list[str]:
    """Lines of hover text for a summary row: its value, the 95 % interval if it has one, and n."""
    parts = [f"<b>{value_text(entry.mean, kind)}</b>"]
    if not (np.isnan(entry.low) or np.isnan(entry.high)):
        parts[-1] += f" (95 %: {value_text(entry.low, kind)} to {value_text(entry.high, kind)})"
    if getattr(entry, "n", None) is not None and not pd.isna(entry.n):
        parts.append(f"n = {int(entry.n)}")
    return parts


def tick_format(kind: str) -> dict[str, Any]:
    """Axis settings that write a metric's ticks by its kind."""
    return {"tickformat": ",.0%"} if kind == "share" else {}


def error_bars(
    frame: pd.DataFrame, middle: str, low: str | None = None, high: str | None = None, *, colour: str = theme.ZERO
) -> dict[str, Any] | None:
    """Plotly error bars from columns of limits; None where the frame has none."""
    low, high = low or f"{middle}_low", high or f"{middle}_high"
    if low not in frame.columns or high not in frame.columns or frame[[low, high]].isna().all(axis=None):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": (frame[high].astype("float64") - frame[middle]).clip(lower=0),
        "arrayminus": (frame[middle] - frame[low].astype("float64")).clip(lower=0),
        "thickness": 1.25,
        "width": 0,
        "color": colour,
    }


def interval_band(
    x: Iterable[Any], low: Iterable[float], high: Iterable[float], *, colour: str, group: str
) -> go.Scatter:
    """The area between limits as a trace; it comes and goes with the line of its legend group. No NaN among them."""
    x, low, high = list(x), list(low), list(high)
    return go.Scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=theme.see_through(colour),
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
    )
