"""`open_documents`: texts from a file, a data set, a list or the package, one at a time and never all at once."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from steerlens import demo
from steerlens.arguments import shown, whole_number
from steerlens.errors import SteerlensError
from steerlens.extras import needs

SHIPPED = demo.DATA / "documents.jsonl.gz"
"""The small public-domain set that ships with the package; `documents.md` beside it describes it."""
OPENWEBTEXT = "Skylion007/openwebtext"
"""The paper's corpus, on the Hugging Face hub."""

Source: TypeAlias = str | Path | pd.DataFrame | Iterable[str]

_PARQUET = (".parquet", ".pq")
_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".json")
_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Documents:
    """Texts in order. Iterating reads them from the source, as few at a time as its format allows.

    Attributes:
        name: where they come from, for tables and settings.
        read: opens the source and gives its texts; a missing text is None.
        size: how many there are, where that is known beforehand.
    """

    name: str
    read: Callable[[], Iterator[str | None]]
    size: int | None = None

    def __iter__(self) -> Iterator[str | None]:
        for number, text in enumerate(self.read()):
            if text is None or text != text:  # NaN is how a frame says that there is none
                yield None
            elif isinstance(text, str):
                # Half a surrogate pair, from a broken file, must not stop a run of days.
                yield text.encode("utf-8", "replace").decode("utf-8")
            else:
                raise SteerlensError(
                    f"document {number} of {self.name} is {type(text).__name__}, not text; name the column of texts"
                )


def open_documents(source: Source, *, column: str = "text", n: int | None = None) -> Documents:
    """The documents of `source`, in its order, at most `n` of them.

    Args:
        source: `"shipped"` (the small public-domain set that ships with the package); the path of a parquet file or of
            a JSON-lines file (`.jsonl`, `.jsonl.gz`); the name of a Hugging Face data set, which is streamed (its split
            `train`); a data frame; or texts: a list, or any iterable, read once.
        column: the column or field that holds the text.

    Raises:
        SteerlensError: no such file, no such column (here); a broken line, a data set that cannot be reached, what is
            no text (while reading).
    """
    n = None if n is None else whole_number("the number of documents", n, least=1)
    documents = _opened(source, column)
    if n is None:
        return documents
    size = None if documents.size is None else min(n, documents.size)
    return Documents(documents.name, lambda: itertools.islice(documents.read(), n), size)


def _opened(source: Source, column: str) -> Documents:
    if isinstance(source, str) and source == "shipped":
        return _lines(SHIPPED, "text", "shipped (public-domain novels)")
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.name.endswith(_PARQUET):
            return _parquet(_existing(path), column)
        if path.name.endswith(_LINES):
            return _lines(_existing(path), column, path.name)
        if isinstance(source, str) and not path.exists() and _DATASET.fullmatch(source):
            return Documents(source, lambda: _streamed(source, column))
        raise SteerlensError(
            f"{str(source)!r} is no source of documents; give a .parquet or .jsonl file, a Hugging Face data set by "
            "name, 'shipped', or a list of texts"
        )
    if isinstance(source, pd.DataFrame):
        _check_column(column, [str(name) for name in source.columns], "the data frame")
        return _opened(source[column].tolist(), column)
    if isinstance(source, list | tuple):
        if not source:
            raise SteerlensError("the list of documents is empty; give at least one text")
        return Documents(f"{len(source)} texts", lambda: iter(source), len(source))
    if isinstance(source, Iterable) and not isinstance(source, Mapping | Set | bytes | bytearray):
        return Documents("texts", lambda: iter(source))
    raise SteerlensError(
        f"documents={shown(source)} is no source of texts; give a path, a data set's name, a data frame, or a list"
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SteerlensError(f"there is no file of documents at {path}; correct the path, or give documents='shipped'")
    return path


def _parquet(path: Path, column: str) -> Documents:
    (parquet,) = needs("pyarrow.parquet", extra="data")
    try:
        facts = parquet.read_metadata(path)
        columns = facts.schema.to_arrow_schema().names
    except Exception as error:  # pyarrow has a dozen of its own
        raise SteerlensError(f"{path} is no parquet file: {_line(error)}; give another file") from None
    _check_column(column, columns, path.name)

    def read() -> Iterator[Any]:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
                yield from batch.column(0).to_pylist()

    return Documents(path.name, read, facts.num_rows)


def _lines(path: Path, column: str, name: str) -> Documents:
    def read() -> Iterator[Any]:
        opener: Any = gzip.open if path.name.endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise SteerlensError(f"line {number} of {path} is no JSON: {_line(error)}; correct it") from None
                if not isinstance(row, dict):
                    raise SteerlensError(f"line {number} of {path} holds no fields; write one object per line")
                _check_column(column, list(row), f"line {number} of {path.name}")
                yield row[column]

    return Documents(name, read)


def _streamed(name: str, column: str) -> Iterator[Any]:
    (datasets,) = needs("datasets", extra="data")
    try:
        rows = iter(datasets.load_dataset(name, split="train", streaming=True))
        first = next(rows, None)
    except Exception as error:  # whatever the hub, the network and the data set's own code may raise
        raise _unreachable(name, error) from None
    if first is None:
        return
    _check_column(column, list(first), f"the data set {name}")
    yield first[column]
    while True:
        try:
            row = next(rows, None)
        except Exception as error:
            raise _unreachable(name, error) from None
        if row is None:
            return
        yield row[column]


def _unreachable(name: str, error: Exception) -> SteerlensError:
    return SteerlensError(
        f"the data set {name!r} cannot be read ({_line(error)}); connect, or download it and give documents= its "
        "parquet or JSONL file, or use documents='shipped'"
    )


def _check_column(column: str, columns: list[str], where: str) -> None:
    if column not in columns:
        raise SteerlensError(f"{where} has no column {column!r}; use column= with one of {', '.join(columns)}")


def _line(error: Exception) -> str:
    """An error of others on one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"
