"""Figures of a sweep: the metric against the layer, over layer and coefficient, and what it cost."""

import itertools
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.analysis import theme
from steerlens.analysis.figures.columns import choose, control, one_each, require, steered
from steerlens.analysis.statistics import pareto_front
from steerlens.errors import SteerlensError


def layer_sweep(
    summary: pd.DataFrame,
    *,
    metric: str | None = None,
    by: str | None = None,
    interval: Literal["auto", "band", "bars"] = "auto",
    mark_layer: int | None = None,
    title: str | None = None,
) -> go.Figure:
    """Figure of each metric against the layer: one line per coefficient, 95 % intervals, the unsteered baseline.

    `summary`, one row per condition and metric: layer (NA for the baseline), coeff, metric (str), kind ("share",
    "mean", or a unit such as "nats"), mean, low, high; optional placement, n, label. Several metrics are drawn one
    above the other; `metric` chooses one. Lines are coefficients, times placements if there are several, times the
    values of the column `by` if named. With the optional column role, rows of role "random" (random vectors of equal
    norm) become a thin dotted line in the colour of their coefficient, "unsteered" the baseline. NaN in mean is a gap,
    NaN in low or high means no interval is drawn there. Rows with coefficient 0 and no layer are the baseline; steered
    rows without a layer (vectors at several layers) are dotted horizontal lines. `interval="auto"` draws bands for up
    to 3 lines and bars for more. `mark_layer` draws a vertical line. Raises SteerlensError for missing columns, 0
    rows, or two rows at one place of a line.
    """
    name = "layer_sweep"
    frame = require(summary, name, text=["metric", "kind"], numbers=["coeff"], gaps=["layer", "mean", "low", "high"])
    if metric is not None:
        frame = choose(frame, name, "metric", metric)
    metrics = list(frame["metric"].drop_duplicates())
    frame["baseline"], frame["control"] = ~steered(frame), control(frame)
    lines = _lines(frame, by)
    placed = frame[~frame["baseline"] & frame["layer"].notna()]
    one_each(placed, name, ["metric", "line", "control", "layer"])
    layers = sorted(int(layer) for layer in placed["layer"].unique()) or [0]
    bands = interval == "band" or (interval == "auto" and len(lines) <= 3)
    rows = len(metrics)
    figure = theme.new_figure(
        title or (f"{metrics[0]} by layer" if rows == 1 else "Effect by layer"),
        _sweep_subtitle(frame),
        height=440 if rows == 1 else 130 + 260 * rows,
    )
    figure.set_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.14 / rows if rows > 1 else 0)
    # Reversed, so that the legend runs from the highest coefficient down to the baseline, as the lines mostly do.
    figure.update_layout(legend={"title": {"text": "coefficient"}, "traceorder": "reversed"})
    colours = dict(zip(lines, theme.line_colours(len(lines)), strict=True))
    for row, one in enumerate(metrics, start=1):
        part = frame[frame["metric"] == one]
        kind = part["kind"].iloc[0]
        ends = (min(layers) - 0.5, max(layers) + 0.5)
        for index, base in enumerate(part[part["baseline"]].itertuples()):
            first = row == 1 and index == 0
            _horizontal(figure, base, kind, ends, row, "unsteered", theme.BASELINE, "dash", legend=first)
        for position, line in enumerate(lines):
            both = part[(part["line"] == line) & ~part["baseline"]].sort_values("layer")
            symbol, legend = theme.SYMBOLS[position % len(theme.SYMBOLS)], row == 1
            for spread in both[both["layer"].isna()].itertuples():
                _horizontal(figure, spread, kind, ends, row, line, colours[line], "dot", legend=legend)
            both = both[both["layer"].notna()]
            if both["control"].any():
                _control_line(figure, both[both["control"]], kind, line, colours[line], row=row, legend=legend)
            own = both[~both["control"]]
            if len(own):
                _line(figure, own, kind, line, colours[line], symbol, row=row, band=bands, legend=legend)
        named = theme.escape(axis_title(one, kind))
        named = named if rows == 1 else "<br>(".join(named.rsplit(" (", 1))  # a low panel has no room for one line
        figure.update_yaxes(title_text=named, row=row, col=1, **_y_axis(part, kind))
        if mark_layer is not None:
            figure.add_vline(x=mark_layer, line={"color": theme.INK, "width": 1.5, "dash": "dot"}, row=row, col=1)
    figure.update_xaxes(**theme.layer_ticks(layers))
    figure.update_xaxes(title_text="layer whose input is steered", row=rows, col=1)
    if rows == 1:
        _mark_best(figure, placed[~placed["control"]])
    return figure


def layer_coefficient_heatmap(
    summary: pd.DataFrame,
    *,
    metric: str | None = None,
    role: Literal["steered", "random"] = "steered",
    title: str | None = None,
) -> go.Figure:
    """Heat map of one metric over layer (across) and coefficient (up), its value in each cell where there is room.

    `summary` as for `layer_sweep`, one placement; `role="random"` draws the random controls instead. The baseline, if
    there, is the row of coefficient 0: the same at every layer, being no injection at all. NaN means are empty cells.
    Raises SteerlensError for missing columns, 0 rows, no steered row with a layer, several metrics without `metric=`,
    or two rows for one cell.
    """
    name = "layer_coefficient_heatmap"
    frame = require(summary, name, text=["metric", "kind"], numbers=["coeff"], gaps=["layer", "mean", "low", "high"])
    frame = choose(frame, name, "metric", metric)
    mask = steered(frame)
    wanted = control(frame) if role == "random" else mask & ~control(frame)
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
            "colorbar": {"title": {"text": theme.escape(axis_title(one, kind))}, **_tick_format(kind)},
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


def effect_against_damage(
    frame: pd.DataFrame,
    *,
    effect: str = "effect",
    damage: str = "damage",
    effect_title: str | None = None,
    damage_title: str | None = None,
    title: str | None = None,
) -> go.Figure:
    """Scatter of what steering achieved against what it broke, the Pareto front joined by a line.

    `frame`, one row per condition: label (str), layer (NA for the baseline), coeff, and the two columns that `effect`
    (more is better) and `damage` (less is better) name; optional `<effect>_low`, `<effect>_high`, `<damage>_low`,
    `<damage>_high` are drawn as bars. The titles name axes with their units and default to the column names. Colour is
    the layer, shape the coefficient (one shape beyond 6 coefficients), an open grey circle the baseline, open shapes
    random controls (optional column role). Rows with NaN in effect or damage are left out. Raises SteerlensError for
    missing columns, 0 rows, or nothing left.
    """
    name = "effect_against_damage"
    data = require(frame, name, text=["label"], numbers=["coeff"], gaps=["layer", effect, damage])
    data = data[data[effect].notna() & data[damage].notna()].reset_index(drop=True)
    if data.empty:
        raise SteerlensError(f"{name}: every row has NaN in {effect!r} or {damage!r}; nothing is left to draw")
    data["front"] = pareto_front(data[effect], data[damage])
    data["baseline"] = ~steered(data)
    x_title, y_title = damage_title or damage, effect_title or effect
    figure = theme.new_figure(
        title or "Effect against damage",
        "up and to the left is better; the line joins conditions that no other beats on both",
        height=560,
    )
    front = data[data["front"]].sort_values([damage, effect])
    figure.add_trace(
        go.Scatter(
            x=front[damage],
            y=front[effect],
            mode="lines",
            line={"color": theme.BASELINE, "width": 1.5, "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    points = data[~data["baseline"]].assign(control=control(data))
    coefficients = sorted(points["coeff"].unique())
    shapes = dict(zip(coefficients, itertools.cycle(theme.SYMBOLS), strict=False))
    many = len(coefficients) > len(theme.SYMBOLS)
    span = (points["layer"].min(), points["layer"].max()) if points["layer"].notna().any() else (0, 1)
    for (coeff, is_control), group in points.groupby(["coeff", "control"], sort=True):
        shape = "circle" if many else shapes[coeff]
        figure.add_trace(
            go.Scatter(
                x=group[damage],
                y=group[effect],
                mode="markers",
                showlegend=False,
                marker={
                    "symbol": f"{shape}-open" if is_control else shape,
                    "size": np.where(group["front"], 12, 8),
                    "color": group["layer"].fillna(span[0]),
                    "coloraxis": "coloraxis",
                    "opacity": 0.95,
                    "line": {"width": np.where(group["front"], 2, 0.5), "color": theme.INK},
                },
                error_x=_asymmetric(group, damage),
                error_y=_asymmetric(group, effect),
                hovertext=[_damage_hover(row, effect, damage, x_title, y_title) for _, row in group.iterrows()],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
        if not many:  # the points take the colour of their layer, so the legend needs a mark of its own
            mark = {"symbol": f"{shape}-open" if is_control else shape, "size": 10, "color": theme.INK}
            named = theme.number(coeff) + (", random vector" if is_control else "")
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=mark, name=named))
    base = data[data["baseline"]]
    if len(base):
        figure.add_trace(
            go.Scatter(
                x=base[damage],
                y=base[effect],
                mode="markers",
                name="unsteered",
                marker={"symbol": "circle-open", "size": 12, "color": theme.BASELINE, "line": {"width": 2}},
                hovertext=[_damage_hover(row, effect, damage, x_title, y_title) for _, row in base.iterrows()],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.update_layout(
        coloraxis={
            "colorscale": theme.ORDERED,
            "cmin": span[0],
            "cmax": max(span[1], span[0] + 1),
            "colorbar": {
                "title": {"text": "layer", "side": "bottom"},
                "tickformat": "d",
                "orientation": "h",
                "len": 0.5,
                "x": 0,
                "xanchor": "left",
                "y": -0.2,
                "yanchor": "top",
            },
        },
        legend={"title": {"text": "coefficient"}},
        margin_b=150,
    )
    figure.update_xaxes(title_text=theme.escape(x_title), showgrid=True)
    figure.update_yaxes(title_text=theme.escape(y_title))
    return figure


def axis_title(metric: str, kind: str) -> str:
    """Name and unit of a metric's axis. Not escaped."""
    unit = {"share": "% of completions", "mean": "mean per completion"}.get(kind, kind)
    return f"{metric} ({unit})"


def _lines(frame: pd.DataFrame, by: str | None) -> list[str]:
    """Names of the lines in drawing order; puts the column `line` into the frame."""
    rows = frame[~frame["baseline"]]
    by = None if by == "role" else by  # roles are told apart as it is
    if by is not None and by not in frame.columns:
        raise SteerlensError(f"layer_sweep: by={by!r} names no column of the frame; it has {', '.join(frame.columns)}")
    extra = [by] if by is not None else []
    if "placement" in frame.columns and rows["placement"].nunique() > 1:
        extra.append("placement")
    names = frame["coeff"].map(lambda coeff: f"coefficient {theme.number(coeff)}")
    for column in extra:
        names = names + " · " + frame[column].map(str)
    frame["line"] = names
    order = frame[~frame["baseline"]].sort_values([*extra[:1], "coeff", *extra[1:]])
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
            go.Scatter(
                x=[*limited["layer"], *limited["layer"][::-1]],
                y=[*limited["high"], *limited["low"][::-1]],
                fill="toself",
                fillcolor=theme.see_through(colour),
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=theme.escape(name),
            ),
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
            error_y=None if band and len(limited) > 1 else _asymmetric(own, "mean", "low", "high", colour=faint),
            hovertext=[_hover(f"layer {entry.layer:.0f}", name, entry, kind) for entry in own.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        row=row,
        col=1,
    )


def _control_line(
    figure: go.Figure, own: pd.DataFrame, kind: str, name: str, colour: str, *, row: int, legend: bool
) -> None:
    """The random vectors of one coefficient: thin, without a band, so that it stays behind the real one."""
    named = f"{name}, random vector"
    figure.add_trace(
        go.Scatter(
            x=own["layer"],
            y=own["mean"],
            mode="lines",
            name=theme.escape(named.removeprefix("coefficient ")),
            legendgroup=theme.escape(named),
            showlegend=legend,
            line={"color": colour, "width": 1.75, "dash": "dot"},
            hovertext=[_hover(f"layer {entry.layer:.0f}", named, entry, kind) for entry in own.itertuples()],
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
            go.Scatter(
                x=[ends[0], ends[1], ends[1], ends[0]],
                y=[entry.low, entry.low, entry.high, entry.high],
                fill="toself",
                fillcolor=theme.see_through(colour),
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=theme.escape(name),
            ),
            row=row,
            col=1,
        )
    # Many points rather than two: hover finds points, and the line should answer wherever it is touched.
    x = np.linspace(*ends, 41)
    text = _hover(name, "no injection" if name == "unsteered" else "vectors at several layers", entry, kind)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=np.full(x.shape, entry.mean),
            mode="lines",
            name=theme.escape(name.removeprefix("coefficient ")),
            legendgroup=theme.escape(name),
            showlegend=legend,
            line={"color": colour, "width": 2, "dash": dash},
            hovertext=[text] * x.size,
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        row=row,
        col=1,
    )


def _hover(head: str, line: str, entry: Any, kind: str) -> str:
    return "<br>".join([f"<b>{theme.escape(head)}</b>", theme.escape(line), *_value_lines(entry, kind)])


def _value_lines(entry: Any, kind: str) -> list[str]:
    parts = [f"<b>{value_text(entry.mean, kind)}</b>"]
    if not (np.isnan(entry.low) or np.isnan(entry.high)):
        parts[-1] += f" (95 %: {value_text(entry.low, kind)} to {value_text(entry.high, kind)})"
    if getattr(entry, "n", None) is not None and not pd.isna(entry.n):
        parts.append(f"n = {int(entry.n)}")
    return parts


def value_text(value: float, kind: str) -> str:
    """A metric's value in the manner of its kind: per cent for shares, else digits and the unit."""
    if kind == "share":
        return theme.percent(value)
    return theme.number(value) + ("" if kind == "mean" else f" {theme.escape(kind)}")


def _short_value(value: float, kind: str) -> str:
    if np.isnan(value):
        return ""
    return f"{100 * value:.0f}" if kind == "share" else theme.number(value, 2)


def _cell_hover(coeff: float, layer: float, mean: float, entry: Any, kind: str) -> str:
    if entry is None:
        return f"<b>unsteered</b><br><b>{value_text(mean, kind)}</b>" if not np.isnan(mean) else ""
    head = f"<b>layer {layer:.0f}, coefficient {theme.number(coeff)}</b>"
    return "<br>".join([head, *_value_lines(entry, kind)])


def _damage_hover(row: pd.Series, effect: str, damage: str, x_title: str, y_title: str) -> str:
    parts = [f"<b>{theme.escape(row['label'])}</b>"]
    if not np.isnan(row["layer"]):
        parts.append(f"layer {row['layer']:.0f}, coefficient {theme.number(row['coeff'])}")
    parts += [f"{theme.escape(title)}: {theme.number(row[column])}"
              for title, column in ((y_title, effect), (x_title, damage))]  # fmt: skip
    if row["front"]:
        parts.append("on the Pareto front")
    return "<br>".join(parts)


def _asymmetric(
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


def _tick_format(kind: str) -> dict[str, Any]:
    return {"tickformat": ",.0%"} if kind == "share" else {}


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
    known = placed[placed["mean"].notna()]
    if known.empty:
        return
    best = known.loc[known["mean"].idxmax()]
    figure.add_annotation(
        x=best["layer"],
        y=best["mean"],
        text=f"layer {best['layer']:.0f}: <b>{value_text(best['mean'], best['kind'])}</b>",
        yshift=17,
    )


def _sweep_subtitle(frame: pd.DataFrame) -> str:
    parts = []
    if frame[["low", "high"]].notna().any(axis=None):
        parts.append("95 % intervals")
    if "n" in frame.columns and frame["n"].notna().any():
        counts = sorted({int(n) for n in frame["n"].dropna()})
        per = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        parts.append(f"{per} completions per point")
    return ", ".join(parts)
