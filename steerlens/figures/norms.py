"""Figure of magnitudes: how long the residual stream and the vectors are at every layer."""

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import one_each, require
from steerlens.figures.intervals import interval_band


def norm_growth(
    frame: pd.DataFrame,
    *,
    value: str = "norm",
    value_title: str | None = None,
    logarithmic: bool = True,
    mark_layer: int | None = None,
    title: str | None = None,
) -> go.Figure:
    """Figure of norms against the layer: one line per series, the median over positions with their range as a band.

    `frame`, one row per series, layer and position: series (str: what was measured, such as "residual stream" or
    "weddings − ␣"), layer (int: at its input), norm (Euclidean length) or another column named by `value`; optional
    position (int), token (str) for hover, and pair or prompt folded into series by the caller. `value_title` names the
    quantity with its unit ("norm (residual stream units)"). NaN is a gap; on the logarithmic axis zero is a gap too,
    such as the BOS position of a vector. Raises SteerlensError for missing columns, 0 rows, negative values on the
    logarithmic axis, or two rows for one point.
    """
    name = "norm_growth"
    data = require(frame, name, text=["series"], numbers=["layer"], gaps=[value])
    one_each(data, name, ["series", "layer", *(["position"] if "position" in data.columns else [])])
    if logarithmic and (data[value] < 0).any():
        raise SteerlensError(f"{name}: {int((data[value] < 0).sum())} values are negative; pass logarithmic=False")
    if logarithmic:
        data[value] = data[value].where(data[value] > 0)
    layers = sorted(int(layer) for layer in data["layer"].unique())
    named = value_title or ("norm (length of the activation vector)" if value == "norm" else value)
    several = bool(data.groupby(["series", "layer"]).size().max() > 1)
    figure = theme.new_figure(
        title or ("Norms by layer" if value == "norm" else f"{named.rsplit(' (', 1)[0]} by layer"),
        "median over positions, the band from least to greatest" if several else None,
    )
    names = list(data["series"].drop_duplicates())
    for index, (series, colour) in enumerate(zip(names, theme.line_colours(len(names)), strict=True)):
        part = data[data["series"] == series]
        spread = part.groupby("layer")[value].agg(["median", "min", "max", "count"]).sort_index()
        known = spread[spread["count"] > 0]
        if (known["count"] > 1).any():
            figure.add_trace(
                interval_band(known.index, known["min"], known["max"], colour=colour, group=f"series {index}")
            )
        figure.add_trace(
            go.Scatter(
                x=spread.index,
                y=spread["median"],
                mode="lines+markers",
                name=theme.escape(theme.shorten(series, 28)),
                legendgroup=f"series {index}",
                line={"color": colour, "width": 2.5},
                marker={
                    "symbol": theme.SYMBOLS[index % len(theme.SYMBOLS)],
                    "size": 7 if len(layers) <= 26 else 4,
                    "color": colour,
                },
                hovertext=[_hover(series, layer, part, value) for layer in spread.index],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    if mark_layer is not None:
        figure.add_vline(x=mark_layer, line={"color": theme.INK, "width": 1.5, "dash": "dot"})
    figure.update_xaxes(title_text="layer (at its input)", **theme.layer_ticks(layers))
    figure.update_yaxes(title_text=theme.escape(named))
    if logarithmic:
        figure.update_yaxes(type="log", exponentformat="power", **_ticks(data[value].min(), data[value].max()))
    return figure


_STEPS = ((1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0))
_FEWEST = 3  # ticks, or the scale cannot be read


def _ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis: powers of ten, or between few of them finer steps, as many as its scale needs.

    Every tick is written in full: plotly's own between powers of ten are digits, "5" for 5 and for 0.5 alike.
    """
    if not high < 100 * low:  # NaN where nothing is positive
        return {"dtick": 1}
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        ticks = [step * 10.0**power for power in powers for step in steps]
        if sum(low <= tick <= high for tick in ticks) >= _FEWEST:
            break
    else:  # so little between them that the scale might as well be linear
        between = (high - low) / _FEWEST or 0.1 * low
        step = next(size * 10.0**power for power in range(math.floor(math.log10(between)) - 1, 99)
                    for size in (1.0, 2.0, 5.0) if size * 10.0**power >= between / 2)  # fmt: skip
        ticks = [step * number for number in range(math.floor(low / step), math.ceil(high / step) + 1) if number > 0]
    return {"tickvals": ticks, "ticktext": [theme.number(tick, 4) for tick in ticks]}


def _hover(series: str, layer: float, part: pd.DataFrame, value: str, *, limit: int = 10) -> str:
    rows = part[(part["layer"] == layer) & part[value].notna()]
    parts = [f"<b>layer {layer:.0f}</b>", theme.escape(series), f"median <b>{theme.number(rows[value].median())}</b>"]
    if len(rows) > 1:
        parts[-1] += f" ({theme.number(rows[value].min())} to {theme.number(rows[value].max())})"
        if "position" in rows.columns:
            for _, row in rows.head(limit).iterrows():
                token = theme.token_label(str(row["token"])) if "token" in rows.columns else ""
                parts.append(f"position {row['position']} {token} {theme.number(row[value])}")
            if len(rows) > limit:
                parts.append(f"and {len(rows) - limit} more positions")
    elif rows.empty or not np.isfinite(rows[value]).all():
        parts[-1] = "no value"
    return "<br>".join(parts)
