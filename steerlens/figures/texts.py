"""Figure of a text: every token coloured by its log-probability, steered against unsteered."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import choose, name_conditions, one_each, require, steered

_LINE = 1.3  # distance of two lines of text, in heights of a token
_HEAD = 1.6  # room for the name of a block


@dataclass(frozen=True)
class _Cell:
    """One token in the laid-out text: its line, its left and right edge in characters, and its row of the frame."""

    line: int
    left: float
    right: float
    position: int
    token: str


_Block = tuple[str, np.ndarray, str]
"""Its heading, a value for every token, and the colour axis that they are on."""


def text_log_probs(
    frame: pd.DataFrame,
    *,
    text: str | None = None,
    width: int = 84,
    title: str | None = None,
) -> go.Figure:
    """Figure of a text set in lines, its tokens coloured by log-probability: unsteered, steered, and the change.

    `frame`, one row per condition and token of the text: label (str), layer (NA for the baseline), coeff, position
    (int), token (str), logprob (nats; NaN for the first token, which nothing predicts: it stays uncoloured); optional
    text (str, which text; `text=` picks one), token_id. With a baseline there are three kinds of block: unsteered,
    then for each of up to 3 steered conditions its log-probabilities and their change. Without a baseline there is no
    change. `width` is the line length in characters. Raises SteerlensError for missing columns, 0 rows, several texts,
    more than 3 steered conditions, tokens that differ between conditions, or two rows at one position.
    """
    name = "text_log_probs"
    data = name_conditions(
        require(frame, name, text=["label", "token"], numbers=["coeff", "position"], gaps=["layer", "logprob"])
    )
    data = choose(data, name, "text", text)
    one_each(data, name, ["label", "position"])
    mask = steered(data)
    base_labels, labels = list(data.loc[~mask, "label"].unique()), list(data.loc[mask, "label"].unique())
    if len(labels) > 3 or len(base_labels) > 1:
        raise SteerlensError(
            f"{name} draws a baseline and up to 3 conditions; the frame has {len(labels)} steered labels"
        )
    ordered = {label: data[data["label"] == label].sort_values("position") for label in [*base_labels, *labels]}
    reference = next(iter(ordered.values()))
    for label, rows in ordered.items():
        if list(rows["token"]) != list(reference["token"]) or list(rows["position"]) != list(reference["position"]):
            raise SteerlensError(f"{name}: the tokens of {label!r} differ from those of {reference['label'].iloc[0]!r}")
    cells = _set_in_lines(reference, width)
    lines = cells[-1].line + 1
    blocks = _blocks(ordered, base_labels[0] if base_labels else None)
    logprobs = {label: rows["logprob"].to_numpy() for label, rows in ordered.items()}
    hover = [_token_hover(cell, index, logprobs) for index, cell in enumerate(cells)]
    tall = len(blocks) * (lines * _LINE + _HEAD)
    figure = theme.new_figure(
        title or "Log-probability of each token", "the darker, the less expected", height=int(170 + 22 * tall)
    )
    top = 0.0
    for head, values, axis in blocks:
        figure.add_annotation(
            x=0, y=-(top + 1.0), text=f"<b>{theme.escape(theme.shorten(head, 100))}</b>", xanchor="left"
        )
        for line in range(lines):
            on_line = [(index, cell) for index, cell in enumerate(cells) if cell.line == line]
            figure.add_trace(_line_of_tokens(on_line, values, hover, top + _HEAD + line * _LINE, axis))
        blank = [(index, cell) for index, cell in enumerate(cells) if np.isnan(values[index])]
        if blank:
            figure.add_trace(_uncoloured(blank, hover, top + _HEAD))
        top += lines * _LINE + _HEAD
    figure.update_layout(**_scales(blocks), margin={"l": 20, "r": 20, "b": 84})
    figure.update_xaxes(visible=False, range=[-0.5, width + 0.5], fixedrange=True)
    figure.update_yaxes(visible=False, range=[-top, 0], fixedrange=True)
    return figure


def _blocks(ordered: dict[str, pd.DataFrame], base: str | None) -> list[_Block]:
    """What is drawn, top to bottom: each condition's log-probabilities, then their change if there is a baseline."""
    blocks: list[_Block] = []
    for label, rows in ordered.items():
        values = rows["logprob"].to_numpy()
        total = theme.number(float(np.nansum(values)), 4)
        blocks.append((f"{label}: {total} nats in all", values, "coloraxis"))
        if base is not None and label != base:
            change = values - ordered[base]["logprob"].to_numpy()
            sign = "+" if np.nansum(change) > 0 else ""
            head = f"{label}, change: {sign}{theme.number(float(np.nansum(change)))} nats"
            blocks.append((head, change, "coloraxis2"))
    return blocks


def _scales(blocks: list[_Block]) -> dict[str, Any]:
    """The two colour axes, of log-probabilities and of changes, each with its bar below the figure."""
    every = np.concatenate([values for _, values, axis in blocks if axis == "coloraxis"])
    changes = [np.abs(values) for _, values, axis in blocks if axis == "coloraxis2"]
    lowest = float(np.nanmin(every)) if np.isfinite(every).any() else -1.0
    largest = float(np.nanmax(np.concatenate(changes))) if changes and np.isfinite(changes).any() else 1.0
    bar: dict[str, Any] = {"orientation": "h", "len": 0.46, "yanchor": "top", "y": -0.01, "xanchor": "left"}
    change_bar = {"x": 0.54, "title": {"text": "change (nats)", "side": "bottom"}, "thickness": 12, "outlinewidth": 0}
    return {
        "coloraxis": {
            # Reversed: an unlikely token is what the eye should find, so it gets the strong colour.
            "colorscale": [(1 - at, colour) for at, colour in reversed(theme.SEQUENTIAL)],
            "cmin": lowest,
            "cmax": 0,
            "colorbar": {**bar, "x": 0, "title": {"text": "log-probability (nats)", "side": "bottom"}},
        },
        "coloraxis2": {
            "colorscale": theme.DIVERGING,
            "cmin": -largest or -1.0,
            "cmax": largest or 1.0,
            "colorbar": {**bar, **change_bar},
            "showscale": bool(changes),
        },
    }


def _set_in_lines(rows: pd.DataFrame, width: int) -> list[_Cell]:
    if width < 16:
        raise SteerlensError(f"width = {width}; a line needs at least 16 characters")
    cells, line, left = [], 0, 0.0
    for row in rows.itertuples():
        room = min(len(theme.visible_token(row.token)), width) + 0.6
        if left and left + room > width:
            line, left = line + 1, 0.0
        cells.append(_Cell(line, left, left + room, int(row.position), row.token))
        left += room
        if row.token.endswith("\n"):
            line, left = line + 1, 0.0
    return cells


def _uncoloured(blank: list[tuple[int, _Cell]], hover: list[str], top: float) -> go.Scatter:
    """Tokens without a value, in the ink of the page: on an empty cell plotly would write as if it were light."""
    return go.Scatter(
        x=[(cell.left + cell.right) / 2 for _, cell in blank],
        y=[-(top + cell.line * _LINE + 0.5) for _, cell in blank],
        mode="text",
        text=[theme.token_label(cell.token, limit=40) for _, cell in blank],
        textfont={"family": theme.MONO, "size": 12, "color": theme.INK},
        hovertext=[hover[index] for index, _ in blank],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )


def _line_of_tokens(
    on_line: list[tuple[int, _Cell]], values: np.ndarray, hover: list[str], top: float, axis: str
) -> go.Heatmap:
    edges = [cell.left for _, cell in on_line] + [on_line[-1][1].right]
    z = [values[index] for index, _ in on_line]
    return go.Heatmap(
        x=edges,
        y=[-(top + 1.0), -top],
        z=[z],
        text=[[_cell_text(cell, values[index]) for index, cell in on_line]],
        texttemplate="%{text}",
        textfont={"family": theme.MONO, "size": 12},
        hovertext=[[hover[index] for index, _ in on_line]],
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=True,
        xgap=1,
        coloraxis=axis,
    )


def _cell_text(cell: _Cell, value: float) -> str:
    return "" if np.isnan(value) else theme.token_label(cell.token, limit=40)


def _token_hover(cell: _Cell, index: int, logprobs: dict[str, np.ndarray]) -> str:
    parts = [f"<b>{theme.token_label(cell.token)}</b>  position {cell.position}"]
    for label, values in logprobs.items():
        value = float(values[index])
        share = f"{theme.number(value)} nats, {theme.percent(float(np.exp(value)))}"
        share = "no log-probability" if np.isnan(value) else share
        parts.append(f"{theme.escape(theme.shorten(label, 50))}: {share}")
    return "<br>".join(parts)
