"""Figures of the perplexity experiment: ratios by bin, layer and coefficient, the essays, and the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import require
from steerlens.figures.cropping import cut_marks
from steerlens.figures.intervals import error_bars, interval_band

_RATIO = "perplexity, steered / unsteered"
_NUMBERS = ["ratio", "low", "high"]
_MOST_TICKS = 14
_ONE = {"color": theme.BASELINE, "width": 1.5, "dash": "dash"}
# How many times the height of a figure another line may add before it is put into words.
_FAR = 1.0
_COLOURS = {"related": theme.BLUE, "unrelated": theme.ORANGE_RED, "wedding": theme.BLUE, "shipping": theme.ORANGE_RED}


def bin_figure(
    steered: pd.DataFrame, prompted: pd.DataFrame | None = None, random: pd.DataFrame | None = None
) -> go.Figure:
    """Figure of the ratio against the share of words on the topic; bins with too few documents are hollow and grey.

    Frames as in `Perplexity.main`: group, kind, share_low, share_high, n, enough, ratio, low, high; rows of kind "bin"
    are drawn. Prompting gets a panel of its own where it would flatten the rest. Raises SteerlensError if there is no
    bin.
    """
    bins = _bins(steered)
    place = {group: number for number, group in enumerate(bins["group"])}
    upper = [("ActAdd", bins, theme.BLUE, "circle", 0.0)]
    if random is not None and len(random):
        upper.append(("random vector", _bins(random), theme.BASELINE, "diamond", -0.16))
    limits = _limits([frame for _, frame, *_ in upper])
    lower: list[tuple[str, pd.DataFrame, str, str, float]] = []
    if prompted is not None and len(prompted):
        line = ("phrase before the sentence", _bins(prompted), theme.ORANGE_RED, "square", 0.16)
        (lower if _is_far(line[1], limits) else upper).append(line)
    figure = theme.new_figure(
        "Perplexity ratio by share of words on the topic",
        "below 1: more likely when steered",
        height=560 if lower else 440,
    )
    figure.set_subplots(
        rows=2 if lower else 1,
        cols=1,
        shared_xaxes=True,
        **({"row_heights": [0.66, 0.34], "vertical_spacing": 0.07} if lower else {}),
    )
    for row, lines in ((1, upper), (2, lower)):
        for name, own, colour, symbol, shift in lines:
            figure.add_trace(
                go.Scatter(
                    x=own["group"].map(place) + (shift if row == 1 else 0.0),
                    y=own["ratio"],
                    mode="markers",
                    name=theme.escape(name),
                    marker={
                        "symbol": [symbol if enough else f"{symbol}-open" for enough in own["enough"]],
                        "size": 7 if name == "random vector" else 9,
                        "color": [colour if enough else theme.BASELINE for enough in own["enough"]],
                    },
                    error_y=error_bars(own, "ratio", "low", "high", colour=theme.see_through(colour, 0.6)),
                    hovertext=[_hover(f"{one.group} on the topic", name, one) for one in own.itertuples()],
                    hovertemplate="%{hovertext}<extra></extra>",
                ),
                row=row,
                col=1,
            )
        if lines:
            figure.add_hline(y=1.0, line=_ONE, row=row, col=1)
    drawn = pd.concat([own.assign(at=own["group"].map(place) + shift) for _, own, _, _, shift in upper])
    marks = cut_marks(drawn["at"], drawn["low"], drawn["high"], limits)
    if len(marks.x):
        figure.add_trace(marks, row=1, col=1)
    step = -(-len(bins) // _MOST_TICKS)
    shown = bins.iloc[::step]
    figure.update_xaxes(
        tickvals=[place[group] for group in shown["group"]],
        ticktext=[f"{theme.escape(one.group)}<br>{int(one.n):,}" for one in shown.itertuples()],
        range=[-0.5, len(bins) - 0.5],
    )
    figure.update_xaxes(title_text="words on the topic, and documents in the bin", row=2 if lower else 1, col=1)
    figure.update_yaxes(title_text=_RATIO, row=1, col=1, range=limits)
    if lower:
        figure.update_yaxes(title_text="… prompted", row=2, col=1, range=_limits([lower[0][1]]))
    return figure


def layer_figure(steered: pd.DataFrame, prompted: pd.DataFrame | None = None) -> go.Figure:
    """Figure of the ratio of related and unrelated documents against the layer, the prompt as horizontal lines.

    Frames with group, layer, coeff, n, ratio, low, high. One panel per coefficient, one line per group.
    """
    frame = require(steered, "layer_figure", text=["group"], numbers=["layer", "coeff"], gaps=_NUMBERS)
    coeffs = sorted(frame["coeff"].unique())
    layers = sorted(int(layer) for layer in frame["layer"].unique())
    lines = None
    if prompted is not None and len(prompted):
        lines = require(prompted, "layer_figure", text=["group"], gaps=_NUMBERS)
    rows = len(coeffs)
    figure = theme.new_figure(
        "Perplexity ratio by layer",
        _prompted_subtitle(lines, frame),
        height=440 if rows == 1 else 150 + 230 * rows,
    )
    figure.set_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.1 / rows if rows > 1 else 0)
    told: set[str] = set()
    for row, coeff in enumerate(coeffs, start=1):
        here = frame[frame["coeff"] == coeff]
        for group, own in here.groupby("group", sort=False):
            name = group if rows == 1 else f"{group}, coefficient {theme.number(coeff)}"
            symbol = "circle" if group == "related" else "square"
            colour = _COLOURS.get(group, theme.PURPLE)
            _curve(figure, own.sort_values("layer"), "layer", name, colour, symbol, row=row, entry=group, told=told)
        if lines is not None and not _is_far(lines, _limits([here])):
            for line in lines.itertuples():
                name = f"{line.group}, prompted"
                figure.add_trace(
                    go.Scatter(
                        x=[layers[0] - 0.5 + i * (layers[-1] - layers[0] + 1) / 40 for i in range(41)],
                        y=[line.ratio] * 41,
                        mode="lines",
                        name=theme.escape(name),
                        legendgroup=name,
                        showlegend=name not in told,
                        line={"color": _COLOURS.get(line.group, theme.PURPLE), "width": 1.75, "dash": "dash"},
                        hovertext=[_hover("prompted", line.group, line)] * 41,
                        hovertemplate="%{hovertext}<extra></extra>",
                    ),
                    row=row,
                    col=1,
                )
                told.add(name)
        figure.add_hline(y=1.0, line=_ONE, row=row, col=1)
        title = _RATIO if rows == 1 else f"coefficient {theme.number(coeff)}"
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_xaxes(**theme.layer_ticks(layers))
    figure.update_xaxes(title_text="layer whose input is steered", row=rows, col=1)
    return figure


def _prompted_subtitle(lines: pd.DataFrame | None, frame: pd.DataFrame) -> str:
    """The subtitle, with the prompt's ratios in words where a line would flatten a panel."""
    below = "below 1: more likely when steered"
    if lines is None or not any(_is_far(lines, _limits([own])) for _, own in frame.groupby("coeff")):
        return below
    ratios = ", ".join(f"{row.group} text {theme.number(row.ratio)}" for row in lines.itertuples())
    return f"{below} · prompted: {ratios}"


def coefficient_figure(steered: pd.DataFrame) -> go.Figure:
    """Figure of the ratio of related and unrelated documents against the coefficient, at one layer.

    Frame with group, coeff, n, ratio, low, high. Coefficient 0 is drawn too: 1 by definition.
    """
    frame = require(steered, "coefficient_figure", text=["group"], numbers=["coeff"], gaps=_NUMBERS)
    figure = theme.new_figure("Perplexity ratio by coefficient", "below 1: more likely when steered")
    for group, own in frame.groupby("group", sort=False):
        if not (own["coeff"] == 0).any():
            nothing = {"group": group, "coeff": 0.0, "ratio": 1.0, "low": 1.0, "high": 1.0, "n": own["n"].iloc[0]}
            own = pd.concat([own, pd.DataFrame([nothing])])
        colour = _COLOURS.get(group, theme.PURPLE)
        _curve(figure, own.sort_values("coeff"), "coeff", group, colour, "circle" if group == "related" else "square")
    _line_at_one(figure)
    largest = frame["high"].fillna(frame["ratio"]).max()
    figure.update_xaxes(title_text="coefficient")
    figure.update_yaxes(title_text=_RATIO, **({"type": "log"} if largest > 5 else {}))
    return figure


def essay_figure(frame: pd.DataFrame) -> go.Figure:
    """Figure of the essays' ratios by layer, masked; whatever is not of "this model" is dashed.

    Frame as in `EssayCurve`. Where the sources differ in depth, the axis is the depth in per cent of all layers.
    """
    rows = frame[frame["mask"]]
    needed = require(rows, "essay_figure", text=["source", "essay"], numbers=["layer", "depth"], gaps=_NUMBERS)
    figure = theme.new_figure("Perplexity ratio of two essays by layer", "below 1: more likely when steered")
    # Layer over depth is the number of layers.
    deep = needed[needed["depth"] > 0]
    same = (deep["layer"] / deep["depth"]).round().nunique() <= 1
    needed["at"] = needed["layer"] if same else 100 * needed["depth"]
    colours = dict(zip(needed["essay"].drop_duplicates(), (theme.BLUE, theme.ORANGE_RED, *theme.PALETTE), strict=False))
    for (source, essay), own in needed.groupby(["source", "essay"], sort=False):
        original = source != "this model"
        name = f"{essay} essay" + (f", {source}" if original else "")
        _curve(
            figure,
            own.sort_values("at"),
            "at",
            name if not original else f"{essay} essay,<br>{source}",
            colours[essay],
            "circle-open" if original else "circle",
            dash="dash" if original else "solid",
        )
    _line_at_one(figure)
    if same:
        figure.update_xaxes(title_text="layer whose input is steered")
    else:
        figure.update_xaxes(title_text="depth of the layer whose input is steered (% of all layers)", ticksuffix=" %")
    figure.update_yaxes(title_text=_RATIO)
    return figure


def token_figure(tokens: pd.DataFrame) -> go.Figure:
    """Figure of the tokens that rose and fell most: mean change of log-probability in nats, with 95 % intervals.

    Frame as from `TokenSums.table`.
    """
    frame = require(tokens, "token_figure", text=["direction", "token"], numbers=["n", "change"], gaps=["low", "high"])
    rose = frame[frame["direction"] == "rose"].sort_values("change", ascending=False)
    fell = frame[frame["direction"] == "fell"].sort_values("change", ascending=False)
    own = pd.concat([rose, fell], ignore_index=True)
    names = [f"{theme.token_label(token)} " for token in own["token"]]
    figure = theme.new_figure(
        "Tokens that steering makes more and less likely",
        "mean change over the token's occurrences in the documents; their number at the right",
        height=150 + 21 * len(own),
    )
    bars = error_bars(own, "change", "low", "high", colour=theme.INK)
    figure.add_trace(
        go.Bar(
            x=own["change"],
            y=list(range(len(own))),
            orientation="h",
            marker={"color": [theme.BLUE if change > 0 else theme.ORANGE_RED for change in own["change"]]},
            error_x=bars,
            hovertext=[
                f"<b>{name}</b><br>{theme.number(row.change)} nats (95 %: {theme.number(row.low)} to "
                f"{theme.number(row.high)})<br>n = {int(row.n):,}"
                for name, row in zip(names, own.itertuples(), strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    for place, row in enumerate(own.itertuples()):
        figure.add_annotation(x=1.0, xref="paper", xanchor="left", xshift=6, y=place, text=f"{int(row.n):,}")
    figure.update_yaxes(
        tickvals=list(range(len(own))),
        ticktext=names,
        autorange="reversed",
        showgrid=False,
        tickfont={"family": theme.MONO, "size": 12},
    )
    figure.update_xaxes(title_text="mean change of log-probability (nats)", zeroline=True, showgrid=True)
    figure.update_layout(bargap=0.3, margin_r=70)
    return figure


def _bins(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["kind"] == "bin"]
    if rows.empty:
        raise SteerlensError("bin_figure got no bins; there is nothing to draw")
    return require(rows, "bin_figure", text=["group"], numbers=["share_low", "n"], gaps=_NUMBERS).sort_values(
        "share_low", ignore_index=True
    )


def _curve(
    figure: go.Figure,
    own: pd.DataFrame,
    x: str,
    name: str,
    colour: str,
    symbol: str,
    *,
    dash: str = "solid",
    row: int | None = None,
    entry: str | None = None,
    told: set[str] | None = None,
) -> None:
    """A line with its band. `entry` is its name in the legend, which is written once: `told` are those written."""
    entry, told = entry or name, set() if told is None else told
    panel = {} if row is None else {"row": row, "col": 1}
    limited = own[own["low"].notna() & own["high"].notna()]
    if len(limited) > 1:
        figure.add_trace(
            interval_band(limited[x], limited["low"], limited["high"], colour=colour, group=entry),
            **panel,
        )
    word = {"layer": "layer", "coeff": "coefficient"}.get(x)
    heads = [
        f"{word} {theme.number(getattr(row, x))}" if word else f"layer {row.layer:.0f}" for row in own.itertuples()
    ]
    figure.add_trace(
        go.Scatter(
            x=own[x],
            y=own["ratio"],
            mode="lines+markers",
            name=entry,
            legendgroup=entry,
            showlegend=entry not in told,
            line={"color": colour, "width": 2.5, "dash": dash},
            marker={"symbol": symbol, "size": 8, "color": colour},
            hovertext=[_hover(head, name, row) for head, row in zip(heads, own.itertuples(), strict=True)],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        **panel,
    )
    told.add(entry)


def _line_at_one(figure: go.Figure) -> None:
    figure.add_hline(y=1.0, line=_ONE)


def _limits(frames: Sequence[pd.DataFrame]) -> list[float]:
    """An axis that holds every ratio, and the intervals of bins with enough documents: those of the others, as wide
    as the page, would flatten the rest."""
    rows = pd.concat(frames)
    enough = rows[rows["enough"].astype(bool)] if "enough" in rows.columns else rows
    values = pd.concat([rows["ratio"], enough["low"], enough["high"], pd.Series([1.0])]).dropna()
    room = 0.12 * max(values.max() - values.min(), 1e-3)
    return [float(values.min() - room), float(values.max() + room)]


def _is_far(frame: pd.DataFrame, limits: Sequence[float]) -> bool:
    """Whether a line is so far off the others that it would flatten them."""
    height = limits[1] - limits[0]
    return bool(frame["ratio"].max() > limits[1] + _FAR * height or frame["ratio"].min() < limits[0] - _FAR * height)


def _hover(head: str, name: str, row: Any) -> str:
    parts = [f"<b>{theme.escape(head)}</b>", name, f"<b>{theme.number(row.ratio, 4)}</b>"]
    if not (pd.isna(row.low) or pd.isna(row.high)):
        parts[-1] += f" (95 %: {theme.number(row.low, 4)} to {theme.number(row.high, 4)})"
    for column, word in (("n", "documents"), ("sentences", "sentences")):
        count = getattr(row, column, None)
        if count is not None and not pd.isna(count):
            parts.append(f"{int(count):,} {word}")
    return "<br>".join(parts)
