"""Figure of a sweep: the metric against the layer."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import choose, condition_numbers, control, one_each, require, roles
from steerlens.figures.intervals import axis_title, error_bars, interval_band, value_lines, value_text


def layer_sweep(
    summary: pd.DataFrame,
    *,
    metric: str | None = None,
    by: str | None = None,
    interval: Literal["auto", "band", "bars"] = "auto",
    mark_layer: int | None = None,
    mark_best: bool | Sequence[int] = True,
    remark: str = "",
    title: str | None = None,
) -> go.Figure:
    """Figure of each metric against the layer: one line per coefficient, 95 % intervals, the unsteered baseline.

    `summary`, one row per condition and metric: layer (NA for the baseline), coeff, metric (str), kind ("share",
    "mean", or a unit such as "nats"), mean, low, high; optional placement, n, label. Several metrics are drawn one
    above the other; `metric` chooses one. Lines are coefficients, times placements if there are several, times the
    values of the column `by` if named. With the optional column role, rows of role "random", "shuffled" and "negated"
    become thin broken lines in the colour of their coefficient (of the vector that is negated), "prompting" a
    horizontal line, "unsteered" the baseline. NaN in mean is a gap, NaN in low or high means no interval is drawn
    there. Rows with coefficient 0 and no layer are the baseline; steered rows without a layer (vectors at several
    layers) are dotted horizontal lines. `interval="auto"` draws bands for up to 3 lines and bars for more.
    `mark_layer` draws a vertical line; `mark_best` writes the best mean of one metric at its point (the smallest where
    the optional column better says "lower"), of all steered rows or of the conditions with the given numbers;
    `remark` ends the subtitle. Raises SteerlensError for missing columns, 0 rows, or two rows at one place of a line.
    """
    name = "layer_sweep"
    frame = require(summary, name, text=["metric", "kind"], numbers=["coeff"], gaps=["layer", "mean", "low", "high"])
    if metric is not None:
        frame = choose(frame, name, "metric", metric)
    metrics = list(frame["metric"].drop_duplicates())
    frame["role"] = roles(frame)
    frame["baseline"], frame["words"] = frame["role"] == "unsteered", frame["role"] == "prompting"
    frame["coeff"] = frame["coeff"].where(frame["role"] != "negated", -frame["coeff"])
    lines = _lines(frame, by)
    placed = frame[~frame["baseline"] & frame["layer"].notna()]
    one_each(placed, name, ["metric", "line", "role", "layer"])
    layers = sorted(int(layer) for layer in placed["layer"].unique()) or [0]
    bands = interval == "band" or (interval == "auto" and len(lines) <= 3)
    rows = len(metrics)
    figure = theme.new_figure(
        title or (f"{metrics[0]} by layer" if rows == 1 else "Effect by layer"),
        "; ".join(filter(None, [_sweep_subtitle(frame), remark])),
        height=440 if rows == 1 else 130 + 260 * rows,
    )
    figure.set_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.14 / rows if rows > 1 else 0)
    # Reversed, so that the legend runs from the highest coefficient down to the baseline, as the lines mostly do.
    figure.update_layout(legend={"title": {"text": "coefficient"}, "traceorder": "reversed"})
    colours = dict(zip(lines, theme.line_colours(len(lines)), strict=True))
    for row, one in enumerate(metrics, start=1):
        part = frame[frame["metric"] == one]
        kind = part["kind"].iloc[0]
        ends, grouped = (min(layers) - 0.5, max(layers) + 0.5), set[str]()
        for index, base in enumerate(part[part["baseline"]].itertuples()):
            first = row == 1 and index == 0
            _horizontal(figure, base, kind, ends, row, "unsteered", theme.BASELINE, "dash", legend=first)
        for index, told in enumerate(part[part["words"]].itertuples()):
            first = row == 1 and index == 0
            _horizontal(figure, told, kind, ends, row, "prompting", theme.INK, "longdashdot", legend=first)
        for position, line in enumerate(lines):
            both = part[(part["line"] == line) & ~part["baseline"] & ~part["words"]].sort_values("layer")
            symbol, legend = theme.SYMBOLS[position % len(theme.SYMBOLS)], row == 1
            for spread in both[both["layer"].isna()].itertuples():
                _horizontal(figure, spread, kind, ends, row, line, colours[line], "dot", legend=legend)
            both = both[both["layer"].notna()]
            for role in _CONTROL_LINES:
                other = both[both["role"] == role]
                if len(other):
                    # Of many lines' controls the legend has one, or it is twice as long and scrolls.
                    group = role if len(lines) > _CONTROLS_NAMED else ""
                    first = legend and not (group and role in grouped)
                    grouped.add(role)
                    _control_line(
                        figure, other, kind, line, colours[line], role=role, row=row, legend=first, group=group
                    )
            own = both[~both["role"].isin(list(_CONTROL_LINES))]
            if len(own):
                _line(figure, own, kind, line, colours[line], symbol, row=row, band=bands, legend=legend)
        named = theme.escape(axis_title(one, kind))
        named = named if rows == 1 else "<br>(".join(named.rsplit(" (", 1))  # a low panel has no room for one line
        figure.update_yaxes(title_text=named, row=row, col=1, **_y_axis(part, kind))
        if mark_layer is not None:
            figure.add_vline(x=mark_layer, line={"color": theme.INK, "width": 1.5, "dash": "dot"}, row=row, col=1)
    figure.update_xaxes(**theme.layer_ticks(layers))
    figure.update_xaxes(title_text="layer whose input is steered", row=rows, col=1)
    if rows == 1 and mark_best:
        own = placed[~control(placed)]
        _mark_best(figure, own if mark_best is True else own[own["condition"].isin(list(mark_best))])
    return figure


_CONTROL_LINES = {"random": "dot", "shuffled": "dashdot", "negated": "dash"}
_CONTROLS_NAMED = 4  # lines, at most, whose controls each have an entry in the legend
_CONTROL_NAMES = {"random": "random vector", "shuffled": "shuffled contrast", "negated": "negated"}


def _lines(frame: pd.DataFrame, by: str | None) -> list[str]:
    """Names of the lines in drawing order; puts the column `line` into the frame."""
    rows = frame[~frame["baseline"] & ~frame["words"]]
    by = None if by == "role" else by  # roles are told apart as it is
    if by is not None and by not in frame.columns:
        raise SteerlensError(f"layer_sweep: by={by!r} names no column of the frame; it has {', '.join(frame.columns)}")
    extra = [by] if by is not None else []
    if "placement" in frame.columns and rows["placement"].nunique() > 1:
        extra.append("placement")
    names = frame["coeff"].map(lambda coeff: f"coefficient {theme.number(coeff)}")
    if "strength" in frame.columns:  # another coefficient at each layer, and yet one line
        names = frame["strength"].map(str)
    for column in extra:
        names = names + " · " + frame[column].map(str)
    frame["line"] = names
    order = frame.loc[rows.index].sort_values([*extra[:1], "coeff", *extra[1:]])
    return list(order["line"].drop_duplicates())


def _line(
    figure: go.Figure,
    own: pd.DataFrame,
    kind: str,
    name: str,
    colour: str,
    symbol: str,
    *,
    row: int,
    band: bool,
    legend: bool,
) -> None:
    limited = own[own["low"].notna() & own["high"].notna() & own["mean"].notna()]
    if band and len(limited) > 1:
        figure.add_trace(
            interval_band(limited["layer"], limited["low"], limited["high"], colour=colour, group=theme.escape(name)),
            row=row,
            col=1,
        )
    size = 8 if len(own) <= 26 else 5 if len(own) <= 50 else 4
    faint = theme.see_through(colour, 0.45)  # at 80 layers the bars would else hide the lines
    figure.add_trace(
        go.Scatter(
            x=own["layer"],
            y=own["mean"],
            mode="lines+markers",
            name=theme.escape(name.removeprefix("coefficient ")),
            legendgroup=theme.escape(name),
            showlegend=legend,
            line={"color": colour, "width": 2.5},
            marker={"symbol": symbol, "size": size, "color": colour},
            error_y=None if band and len(limited) > 1 else error_bars(own, "mean", "low", "high", colour=faint),
            customdata=condition_numbers(own),
            hovertext=[_hover(f"layer {entry.layer:.0f}", name, entry, kind) for entry in own.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        row=row,
        col=1,
    )


def _control_line(
    figure: go.Figure,
    own: pd.DataFrame,
    kind: str,
    name: str,
    colour: str,
    *,
    role: str,
    row: int,
    legend: bool,
    group: str,
) -> None:
    """The controls beside one coefficient: thin, without a band, so that it stays behind the real one.

    With a `group` they come and go with all others of it, and its first line stands for them in the legend.
    """
    named = f"{name}, {_CONTROL_NAMES[role]}"
    entry = f"{_CONTROL_NAMES[role]},<br>in each line's colour" if group else theme.escape(named)
    figure.add_trace(
        go.Scatter(
            x=own["layer"],
            y=own["mean"],
            mode="lines",
            name=entry.removeprefix("coefficient "),
            legendgroup=group or theme.escape(named),
            showlegend=legend,
            line={"color": colour, "width": 1.25 if group else 1.75, "dash": _CONTROL_LINES[role]},
            customdata=condition_numbers(own),
            hovertext=[_hover(f"layer {point.layer:.0f}", named, point, kind) for point in own.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        row=row,
        col=1,
    )


def _horizontal(
    figure: go.Figure,
    entry: Any,
    kind: str,
    ends: tuple[float, float],
    row: int,
    name: str,
    colour: str,
    dash: str,
    *,
    legend: bool,
) -> None:
    if np.isnan(entry.mean):
        return
    if not (np.isnan(entry.low) or np.isnan(entry.high)):
        figure.add_trace(
            interval_band(ends, [entry.low] * 2, [entry.high] * 2, colour=colour, group=theme.escape(name)),
            row=row,
            col=1,
        )
    # Many points rather than two: hover finds points, and the line should answer wherever it is touched.
    x = np.linspace(*ends, 41)
    what = {"unsteered": "no injection", "prompting": "words in place of a vector"}
    number = getattr(entry, "condition", None)
    text = _hover(name, what.get(name, "vectors at several layers"), entry, kind)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=np.full(x.shape, entry.mean),
            mode="lines",
            name=theme.escape(name.removeprefix("coefficient ")),
            legendgroup=theme.escape(name),
            showlegend=legend,
            line={"color": colour, "width": 2, "dash": dash},
            customdata=None if number is None else [number] * x.size,
            hovertext=[text] * x.size,
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        row=row,
        col=1,
    )


def _hover(head: str, line: str, entry: Any, kind: str) -> str:
    return "<br>".join([f"<b>{theme.escape(head)}</b>", theme.escape(line), *value_lines(entry, kind)])


def _y_axis(part: pd.DataFrame, kind: str) -> dict[str, Any]:
    values = part[["mean", "low", "high"]].to_numpy()
    if np.isnan(values).all():
        return {}
    top, bottom = float(np.nanmax(values)), float(np.nanmin(values))
    if kind == "share":  # room for the highest marker; a fine grid of ticks where all shares are small
        upper = min(max(1.12 * top, 0.02), 1.06)
        return {"range": [-0.02 * upper, upper], "tickformat": ",.0%" if top > 0.06 else ",.1%"}
    if bottom >= 0 and bottom < 0.5 * top:
        return {"range": [-0.02 * top, 1.12 * top]}
    return {"zeroline": bottom < 0 < top}


def _mark_best(figure: go.Figure, placed: pd.DataFrame) -> None:
    if placed["mean"].isna().all():
        return
    lower = "better" in placed.columns and (placed["better"] == "lower").all()
    best = placed.loc[placed["mean"].idxmin() if lower else placed["mean"].idxmax()]
    figure.add_annotation(
        x=best["layer"],
        y=best["mean"],
        text=f"layer {best['layer']:.0f}: <b>{value_text(best['mean'], best['kind'])}</b>",
        yshift=17,
    )


def _sweep_subtitle(frame: pd.DataFrame) -> str:
    parts = ["95 % intervals"] if frame[["low", "high"]].notna().any(axis=None) else []
    if "n" in frame.columns and frame["n"].notna().any():
        low, high = int(frame["n"].min()), int(frame["n"].max())
        parts.append(f"{low if low == high else f'{low} to {high}'} completions per point")
    return ", ".join(parts)
