"""Contrast sets in files: which columns mean what, in the formats of the steering literature."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from steerlens.arguments import listed, shown, text
from steerlens.errors import SteerlensError

_PAIRS = (
    ("positive", "negative"),
    ("positive_prompt", "negative_prompt"),
    ("chosen", "rejected"),
    ("matching", "not_matching"),
    ("answer_matching_behavior", "answer_not_matching_behavior"),
)
_CONTEXTS = ("question", "prompt", "context")
_TEXTS = ("statement", "text")
_LABELS = {
    **dict.fromkeys(("1", "1.0", "true", "pos", "positive", "yes"), True),
    **dict.fromkeys(("0", "0.0", "false", "neg", "negative", "no", "-1"), False),
}
_KNOWN = "positive and negative; question, matching and not_matching; or statement and label"


class Contrast(NamedTuple):
    """The parts of a ContrastSet, as plain data."""

    positive: tuple[Any, ...]
    negative: tuple[Any, ...]
    context: tuple[str, ...] | None
    paired: bool


def read_contrast(
    path: Path, *, columns: tuple[str, str] | None = None, templates: tuple[str | None, str | None] = (None, None)
) -> Contrast:
    """The contrast read from a CSV, JSON, JSONL or parquet file; see `ContrastSet.read`."""
    if columns is not None:
        columns = _two_columns(columns)
    rows = _rows(path)
    if not rows:
        raise SteerlensError(f"{path} holds no rows; give a file of at least one pair")
    if any(template is not None for template in templates):
        texts = [row if isinstance(row, str) else _single_text(row, path, number) for number, row in enumerate(rows)]
        return from_template(texts, templates[0], templates[1], str(path))
    if all(isinstance(row, str) for row in rows):
        raise SteerlensError(
            f"{path} is a list of texts without a contrast; give templates: "
            'ContrastSet.read(path, positive="Happily: {}", negative="Sadly: {}")'
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise SteerlensError(f"{path}, row {number + 1} is no object with columns but {row!r:.40}; give {_KNOWN}")
    return as_contrast(rows, str(path), columns=columns)


def _two_columns(columns: object) -> tuple[str, str]:
    names = [text("a column", one) for one in listed("columns", columns, of="two column names")]
    if len(names) != 2:
        raise SteerlensError(f"columns must be the names of the positive and the negative column, got {shown(columns)}")
    return names[0], names[1]


def as_contrast(rows: Sequence[dict[str, Any]], where: str, *, columns: tuple[str, str] | None = None) -> Contrast:
    """The contrast in rows with named columns.

    Raises:
        SteerlensError: columns of no known format, a missing value, a label that is neither of the two.
    """
    names = rows[0].keys()
    for pair in [columns] if columns is not None else _PAIRS:
        if len(pair) == 2 and set(pair) <= names:
            return _pairs(rows, where, pair)
    text = next((name for name in _TEXTS if name in names), None)
    if columns is None and text is not None and "label" in names:
        return _labelled(rows, where, text)
    wanted = _KNOWN if columns is None else " and ".join(map(str, columns))
    raise SteerlensError(f"{where} has the columns {', '.join(map(str, names)) or 'none'}; needed are {wanted}")


def from_template(texts: Sequence[str], positive: str | None, negative: str | None, where: str) -> Contrast:
    """One pair for each text, in place of `{}`."""
    for name, template in (("positive", positive), ("negative", negative)):
        if not isinstance(template, str) or "{}" not in template:
            raise SteerlensError(f"the {name} template must hold {{}} where the text goes, got {shown(template)}")
    for number, one in enumerate(texts):
        if not isinstance(one, str):
            raise SteerlensError(f"{where}, row {number + 1} must be a text, got {shown(one)}")
    if not texts:
        raise SteerlensError(f"{where} is empty; give at least one text")
    return Contrast(
        tuple(positive.replace("{}", one) for one in texts),  # type: ignore[union-attr]
        tuple(negative.replace("{}", one) for one in texts),  # type: ignore[union-attr]
        None,
        True,
    )


def _pairs(rows: Sequence[dict[str, Any]], where: str, pair: tuple[str, str]) -> Contrast:
    context = next((name for name in _CONTEXTS if name in rows[0]), None)
    sides: list[list[Any]] = [[], []]
    for number, row in enumerate(rows):
        for side, name in zip(sides, pair, strict=True):
            side.append(_value(row, name, where, number))
    if context is None or not all(isinstance(text, str) for text in (*sides[0], *sides[1])):
        return Contrast(tuple(sides[0]), tuple(sides[1]), None, True)
    contexts = [_value(row, context, where, number, may_be_empty=True) for number, row in enumerate(rows)]
    joined = [tuple(map(_join, contexts, side)) for side in sides]
    return Contrast(joined[0], joined[1], tuple(contexts), True)


def _join(context: str, completion: str) -> str:
    glued = not context or context[-1].isspace() or completion[0].isspace()
    return context + completion if glued else f"{context} {completion}"


def _labelled(rows: Sequence[dict[str, Any]], where: str, text: str) -> Contrast:
    labels = []
    for number, row in enumerate(rows):
        label = str(_value(row, "label", where, number, text=False)).strip().lower()
        if label not in _LABELS:
            raise SteerlensError(
                f"{where}, row {number + 1}: label {label!r} is neither of 1 and 0; leave such rows out"
            )
        labels.append(_LABELS[label])
    texts = [_value(row, text, where, number) for number, row in enumerate(rows)]
    sides = [
        tuple(one for one, label in zip(texts, labels, strict=True) if label is wanted) for wanted in (True, False)
    ]
    for name, side in zip(("1", "0"), sides, strict=True):
        if not side:
            raise SteerlensError(f"{where} has no row with label {name}; give both classes")
    # The i-th text of one class belongs to the i-th of the other only if they are side by side in the file.
    paired = len(labels) % 2 == 0 and all(labels[i] != labels[i + 1] for i in range(0, len(labels), 2))
    return Contrast(sides[0], sides[1], None, paired)


def _value(
    row: dict[str, Any], name: str, where: str, number: int, *, may_be_empty: bool = False, text: bool = True
) -> Any:
    value = row.get(name)
    if isinstance(value, list) and value and all(isinstance(message, dict) for message in value):
        return value  # a chat
    missing = value is None or value != value or (value == "" and not may_be_empty)
    if missing or (text and not isinstance(value, str)):
        raise SteerlensError(
            f"{where}, row {number + 1}: {name} {'is missing' if missing else f'is no text: {value!r:.40}'}"
        )
    return value


def _single_text(row: Any, path: Path, number: int) -> str:
    name = next((name for name in _TEXTS if isinstance(row, dict) and name in row), None)
    if name is None:
        raise SteerlensError(f"{path}, row {number + 1} is no text; templates need a list of texts, or a column 'text'")
    return str(_value(row, name, str(path), number))


def _rows(path: Path) -> list[Any]:
    try:
        there = path.is_file()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise SteerlensError(f"no file at {path}; give a CSV, JSON, JSONL or parquet file")
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _parquet_rows(path)
    if kind not in (".csv", ".json", ".jsonl"):
        raise SteerlensError(f"{path} is no contrast set by its name; give a .csv, .json, .jsonl or .parquet file")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise SteerlensError(f"cannot read {path}: {reason}") from None
    if kind == ".csv":
        try:
            table = csv.DictReader(io.StringIO(content, newline=""), strict=True)
            rows: list[Any] = list(table)
        except csv.Error as error:
            raise SteerlensError(f"{path} is no CSV: {error}") from None
        for number, row in enumerate(rows):
            if None in row:
                raise SteerlensError(
                    f"{path}, row {number + 1} has more fields than the header; quote texts with commas"
                )
        return rows
    try:
        if kind == ".jsonl":
            return [json.loads(line) for line in content.splitlines() if line.strip()]
        data = json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise SteerlensError(f"{path} is no {kind[1:].upper()}: {error}") from None
    if not isinstance(data, list):
        raise SteerlensError(f"{path} must hold a list, got {type(data).__name__}; give a list of pairs")
    return data


def _parquet_rows(path: Path) -> list[Any]:
    from steerlens.extras import needs

    (parquet,) = needs("pyarrow.parquet", extra="data")
    try:
        return list(parquet.read_table(path).to_pylist())
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise SteerlensError(f"{path} is no parquet file: {str(error).splitlines()[0]}") from None
