"""Completions of several conditions side by side, matched words marked: as HTML and as text for a terminal."""

import html
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerlens import arguments
from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import choose, control, name_conditions, one_each, require, steered
from steerlens.measures.metrics import Metric

# Inherits the colours of the page, so that it fits light and dark alike; the marking is a tint and an underline.
# (each class twice, so that the rules win over those that Jupyter has for any table)
_STYLE = """
.sl-sides.sl-sides{border-collapse:separate;border-spacing:0;width:100%;table-layout:fixed;font-size:.93em;
line-height:1.5;
color:inherit;background:none;text-align:left}
.sl-sides.sl-sides caption{caption-side:top;text-align:left;padding:.9em 0 .5em;color:inherit;opacity:.85}
.sl-sides.sl-sides caption q{font-weight:600;opacity:1}
.sl-sides.sl-sides th{vertical-align:bottom;text-align:left;font-weight:600;padding:.4em 1em .5em 0;
overflow-wrap:anywhere;
border-bottom:2px solid rgba(128,136,148,.45)}
.sl-sides.sl-sides th small{display:block;font-weight:400;opacity:.75}
.sl-sides.sl-sides td{vertical-align:top;text-align:left;padding:.65em 1.2em .65em 0;white-space:pre-wrap;
overflow-wrap:anywhere;unicode-bidi:isolate;border-bottom:1px solid rgba(128,136,148,.22)}
.sl-sides.sl-sides .sl-no{width:2.4em;opacity:.6;font-variant-numeric:tabular-nums}
.sl-sides.sl-sides tr,.sl-sides.sl-sides tr:nth-child(even),.sl-sides.sl-sides tr:hover{background:none}
.sl-sides.sl-sides mark{color:inherit;background:rgba(240,160,20,.32);border-bottom:2px solid #d98300;border-radius:2px;
padding:0 .12em;font-weight:600}
""".strip().replace("\n", "")

_PROMPTS = 3  # prompts shown when the frame has more and none is chosen

Segments = tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class SideBySide:
    """Completions ready to show: `.html` for a page, `.text()` for a terminal; Jupyter shows the HTML by itself.

    `columns` are the conditions' labels and `notes` a line about each; `blocks` hold for each prompt the rows (sample
    number, one cell per column), a cell being pieces of text with True where a word is marked.
    """

    columns: tuple[str, ...]
    notes: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[tuple[int, tuple[Segments, ...]], ...]], ...]
    footnote: str

    @property
    def html(self) -> str:
        """The tables as one HTML fragment, all text escaped, with its own small style sheet."""
        heads = "".join(
            f'<th scope="col">{html.escape(label)}<small>{html.escape(note)}</small></th>'
            for label, note in zip(self.columns, self.notes, strict=True)
        )
        tables = []
        for prompt, rows in self.blocks:
            body = "".join(
                f'<tr><td class="sl-no">{sample}</td>'
                + "".join(f'<td dir="auto">{_as_html(cell)}</td>' for cell in cells)
                + "</tr>"
                for sample, cells in rows
            )
            tables.append(
                f'<table class="sl-sides"><caption>Prompt: <q>{html.escape(prompt)}</q></caption>'
                f'<thead><tr><th class="sl-no" scope="col">#</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
            )
        return f"<style>{_STYLE}</style>{''.join(tables)}<p><small>{html.escape(self.footnote)}</small></p>"

    def text(self, width: int = 100, *, colour: bool = False) -> str:
        """The same as text of `width` columns; marked words in *stars*, or bold yellow with `colour=True`.

        Control characters of the completions are written out (\\u001b), so that they cannot move the cursor.
        """
        gap = 3
        each = (width - 4 - gap * (len(self.columns) - 1)) // len(self.columns)
        if each < 12:
            raise SteerlensError(
                f"width = {width} is too narrow for {len(self.columns)} columns; give at least 16 for each"
            )
        out = []
        for prompt, rows in self.blocks:
            out += [f"Prompt: {_safe(prompt)}", ""]
            heads = [_wrap(((label, False),), each) for label in self.columns]
            heads = [[*head, *_wrap(((note, False),), each)] for head, note in zip(heads, self.notes, strict=True)]
            out += list(_beside("", heads, each, gap, colour))
            out.append("    " + (" " * gap).join("─" * each for _ in self.columns))
            for sample, cells in rows:
                out += list(_beside(str(sample), [_wrap(cell, each) for cell in cells], each, gap, colour))
                out.append("")
        out.append(_safe(self.footnote))
        return "\n".join(line.rstrip() for line in out)

    def _repr_html_(self) -> str:
        return self.html

    def __str__(self) -> str:
        return self.text()


def completions_side_by_side(
    frame: pd.DataFrame,
    metric: Metric | None = None,
    *,
    labels: Sequence[str] | None = None,
    n: int = 6,
    prompt: str | None = None,
) -> SideBySide:
    """Completions of the baseline and of steered conditions side by side, the metric's words marked.

    `frame`, one row per completion as `generate` gives it: label, prompt, sample, completion; optional condition
    (whose layers and coefficients are added to labels that would be alike), coeff, layer (to know the baseline),
    n_tokens. `labels` chooses the columns and their order; by default all of up to 3 conditions, else the baseline and
    the condition of the best metric (the first one without a metric), controls (column role) aside. Shown
    are the first `n` sample numbers, never the best ones; the headings give the metric over ALL of a condition's rows.
    Raises SteerlensError for missing columns, 0 rows, unknown labels or two rows for one sample.
    """
    name = "completions_side_by_side"
    data = name_conditions(require(frame, name, text=["label", "prompt", "completion"], numbers=["sample"]))
    n = arguments.whole_number("n", n, least=1)
    if metric is not None and not isinstance(metric, Metric):
        raise SteerlensError(f"metric must be one of sl.metrics, got {arguments.shown(metric)}")
    labels = None if labels is None else arguments.texts("labels", labels)
    prompt = None if prompt is None else arguments.text("prompt", prompt)
    data = data if prompt is None else choose(data, name, "prompt", prompt)
    one_each(data, name, ["label", "prompt", "sample"])
    data["baseline"], data["control"] = ~steered(data), control(data)
    if metric is not None:
        data["value"] = metric(data["completion"])
    present = list(data["label"].drop_duplicates())
    remark = ""
    if labels is None:
        labels = present
        if len(present) > 3:
            base = list(data.loc[data["baseline"], "label"].drop_duplicates())
            best = _best(data, metric)
            labels = [*base[:1], best]
            rivals = data.loc[~data["baseline"] & ~data["control"], "label"].nunique()
            end = "lowest" if metric is not None and metric.better == "lower" else "highest"
            remark = f"; “{best}” has the {end} mean of {rivals} conditions" if metric else ""
    unknown = [label for label in labels if label not in present]
    if unknown or not labels:
        raise SteerlensError(
            f"{name}: no rows have the label {unknown[0]!r}" if unknown else f"{name}: labels is empty"
        )
    prompts = list(data["prompt"].drop_duplicates())
    blocks = []
    for one in prompts[:_PROMPTS]:
        rows = data[(data["prompt"] == one) & data["label"].isin(labels)]
        cells = {(row.label, row.sample): row.completion for row in rows.itertuples()}
        samples = sorted(rows["sample"].unique())[:n]
        lines = tuple(
            (int(sample), tuple(_segments(cells.get((label, sample)), metric) for label in labels))
            for sample in samples
        )
        blocks.append((one, lines))
    shown = len(blocks[0][1])
    total = int(data[data["label"] == labels[0]].groupby("prompt").size().max())
    footnote = f"The first {shown} of {total} samples{remark}."
    if len(prompts) > _PROMPTS:
        footnote = f"{_PROMPTS} of {len(prompts)} prompts. {footnote}"
    notes = tuple(_note(data[data["label"] == label], metric) for label in labels)
    return SideBySide(tuple(labels), notes, tuple(blocks), footnote)


def _best(data: pd.DataFrame, metric: Metric | None) -> str:
    rows = data[~data["baseline"] & ~data["control"]]
    rows = rows if len(rows) else data
    if metric is None or rows["value"].isna().all():
        return str(rows["label"].iloc[0])
    means = rows.groupby("label", sort=False)["value"].mean()
    return str(means.idxmin() if metric.better == "lower" else means.idxmax())


def _note(rows: pd.DataFrame, metric: Metric | None) -> str:
    if metric is None:
        return f"{len(rows)} completions"
    values = rows["value"].dropna()
    if metric.kind == "share":
        share = float(values.mean()) if len(values) else np.nan
        return f"{metric.name}: {int(values.sum())} of {len(values)} ({theme.percent(share)})"
    return f"{metric.name}: mean {theme.number(float(values.mean()))} over {len(values)}"


def _segments(text: str | None, metric: Metric | None) -> Segments:
    if text is None:
        return (("–", False),)
    pieces, at = [], 0
    for start, end in metric.spans(text) if metric is not None else []:
        pieces += [(text[at:start], False), (text[start:end], True)]
        at = end
    return tuple((piece, marked) for piece, marked in [*pieces, (text[at:], False)] if piece)


def _as_html(cell: Segments) -> str:
    return "".join(
        f"<mark>{html.escape(piece)}</mark>" if marked else html.escape(piece) for piece, marked in cell
    ).strip(" ")


def _safe(text: str) -> str:
    """`text` on one line: line ends as ⏎, other control characters written out."""
    shown = text.replace("\r\n", "\n").replace("\n", "⏎ ").replace("\t", " ")
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") else f"\\u{ord(c):04x}" for c in shown)


def _columns(text: str) -> int:
    """How many columns of a terminal `text` takes: wide East Asian characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )


def _wrap(cell: Segments, width: int) -> list[list[tuple[str, bool]]]:
    """The cell in lines of at most `width` columns, broken at spaces; a marked piece is kept in one line if it fits."""
    words: list[tuple[str, bool]] = []
    for piece, marked in cell:
        safe = _safe(piece)
        words += [(safe, True)] if marked else [(word, False) for word in _split_keeping_spaces(safe)]
    lines: list[list[tuple[str, bool]]] = [[]]
    used = 0
    for word, marked in words:
        size = _columns(word) + (2 if marked else 0)  # room for the stars
        if used and used + _columns(word.rstrip()) + (2 if marked else 0) > width:
            lines.append([])
            used, word = 0, word.lstrip()
            size = _columns(word) + (2 if marked else 0)
        while size > width:  # a word longer than the column is cut
            head, word = word[: max(1, width // 2)], word[max(1, width // 2) :]
            lines[-1].append((head, marked))
            lines.append([])
            size, used = _columns(word) + (2 if marked else 0), 0
        if word and (used or word.strip()):
            lines[-1].append((word, marked))
            used += size
    return lines


def _split_keeping_spaces(text: str) -> Iterator[str]:
    word = ""
    for character in text:
        if word and word[-1] == " " and character != " ":
            yield word
            word = ""
        word += character
    if word:
        yield word


def _beside(
    number: str, cells: list[list[list[tuple[str, bool]]]], width: int, gap: int, colour: bool
) -> Iterator[str]:
    for line in range(max(len(cell) for cell in cells)):
        out = f"{number if line == 0 else '':<4}"
        for column, cell in enumerate(cells):
            pieces = cell[line] if line < len(cell) else []
            used = 0
            for piece, marked in pieces:
                out += (f"\x1b[1;33m{piece}\x1b[0m" if colour else f"*{piece}*") if marked else piece
                used += _columns(piece) + (2 if marked and not colour else 0)
            if column < len(cells) - 1:
                out += " " * max(0, width - used + gap)
        yield out
