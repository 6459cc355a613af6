"""`read_records`: prompts with their labels, from the package, a file, a Hugging Face data set, or the caller."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from steerlens import demo
from steerlens.arguments import shown, whole_number
from steerlens.errors import SteerlensError
from steerlens.extras import needs
from steerlens.models import HookedModel
from steerlens.steering.tokens import continuation_ids

Source: TypeAlias = str | Path | pd.DataFrame | Sequence[Any] | None
"""Prompts: None (those of the package), a file, the name of a Hugging Face data set, a frame, or a list."""

SHIPPED = demo.DATA
_KINDS = ".parquet, .jsonl, .json, .csv, .tsv, .txt"


def read_records(
    source: Source,
    *,
    shipped: str,
    columns: Mapping[str, Sequence[str]],
    optional: Sequence[str] = (),
    split: str = "test",
    most: int | None = None,
) -> pd.DataFrame:
    """One row per prompt, with the columns asked for.

    Args:
        source: None for the file `shipped` of the package; a path (.parquet, .jsonl, .csv, .tsv, .txt with one text per
            line; .gz too); the name of a data set on the Hugging Face hub; a frame; a list of texts, or of tuples in
            the order of `columns`.
        columns: for each column wanted, the names that it may have in the source.
        optional: those of `columns` that may be missing.
        split: of a hub's data set.
        most: rows read from a hub's data set.

    Raises:
        SteerlensError: no such file or data set, no network, a column missing, no rows, an empty text.
    """
    if source is None:
        found = _from_file(SHIPPED / shipped)
    elif isinstance(source, pd.DataFrame):
        found = source
    elif isinstance(source, str | Path):
        found = _named(source, split, most)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | Set | bytes | bytearray):
        found = _listed(list(source), list(columns))
    else:
        raise SteerlensError(
            f"prompts={shown(source)} is no source of prompts; give a path, a data frame, or a list of texts"
        )
    where = "the list of prompts" if not isinstance(source, str | Path) else str(source)
    if not len(found):
        raise SteerlensError(f"{where} is empty; give at least one prompt")
    taken = {}
    for wanted, names in columns.items():
        name = next((one for one in names if one in found.columns), None)
        if name is not None:
            taken[wanted] = found[name].to_numpy()
        elif wanted not in optional:
            raise SteerlensError(
                f"{where} has no column {' or '.join(repr(name) for name in names)}; it has "
                f"{', '.join(map(str, found.columns))}; rename the one that is meant"
            )
    frame = pd.DataFrame(taken)
    text = next(iter(columns))
    # RealToxicityPrompts on the hub keeps text and scores of a prompt together.
    frame[text] = [one.get("text") if isinstance(one, dict) else one for one in frame[text]]
    bad = [not isinstance(one, str) or not one.strip() for one in frame[text]]
    if any(bad):
        raise SteerlensError(f"{sum(bad)} of the {len(frame)} prompts of {where} are empty; leave those rows out")
    return frame


def openings(model: HookedModel, texts: Sequence[str], tokens: int | None) -> list[str]:
    """The first `tokens` tokens of each text (None: the whole text), line breaks of HTML as spaces.

    A token may end inside a character; such a torn character at the end is left out.
    """
    check_count("opening", tokens)
    found = []
    for text in texts:
        plain = " ".join(text.replace("<br />", " ").split())
        ids = continuation_ids(model, plain)
        if tokens is not None and len(ids) > tokens:
            plain = model.tokenizer.decode(ids[:tokens], clean_up_tokenization_spaces=False).rstrip("\ufffd").rstrip()
        found.append(plain)
    return found


def some_rows(frame: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """`count` of the rows, drawn by the seed, in their order; all of them for None or where there are no more."""
    check_count("n_prompts", count)
    if count is None or count >= len(frame):
        return frame.reset_index(drop=True)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(frame))[:count])
    return frame.iloc[chosen].reset_index(drop=True)


def source_name(source: Source, shipped: str) -> str:
    """Where prompts come from, for the settings."""
    if source is None:
        return shipped
    return str(source) if isinstance(source, str | Path) else f"{len(source)} given by the caller"


def check_count(name: str, value: int | None) -> None:
    """Raises SteerlensError unless an optional count is a whole number of at least 1, or None."""
    if value is not None:
        whole_number(name, value, least=1)


def _named(source: str | Path, split: str, most: int | None) -> pd.DataFrame:
    path = Path(source).expanduser()
    if path.is_file():
        return _from_file(path)
    if isinstance(source, Path) or path.suffix in (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".gz"):
        raise SteerlensError(f"there is no file {path}; download the data set and give the path of its {_KINDS} file")
    (datasets,) = needs("datasets", extra="data")
    try:
        rows = datasets.load_dataset(str(source), split=split, streaming=True)
        return pd.DataFrame(list(islice(iter(rows), most)))
    except Exception as error:  # the library has no common class for what a hub and a network can do
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SteerlensError(
            f"cannot load the data set {str(source)!r} (split {split!r}: {reason[:160]}); download it and give the "
            f"path of its {_KINDS} file, or leave prompts out to use those of the package"
        ) from None


def _from_file(path: Path) -> pd.DataFrame:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    try:
        if kind == ".parquet":
            needs("pyarrow", extra="data")
            return pd.read_parquet(path)
        if kind in (".csv", ".tsv"):
            return pd.read_csv(path, sep="\t" if kind == ".tsv" else ",")
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            lines = [line for line in file.read().splitlines() if line.strip()]
        if kind in (".jsonl", ".json"):
            return pd.DataFrame([json.loads(line) for line in lines])
        if kind == ".txt":
            return pd.DataFrame({"text": lines})
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, SteerlensError):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SteerlensError(f"cannot read prompts from {path} ({reason[:160]}); give a {_KINDS} file") from None
    raise SteerlensError(f"{path} is of no kind that prompts are read from; give a {_KINDS} file")


def _listed(given: list[Any], columns: list[str]) -> pd.DataFrame:
    if all(isinstance(one, str) for one in given):
        return pd.DataFrame({columns[0]: given}, columns=[columns[0]])
    if not all(isinstance(one, tuple | list) and len(one) == len(columns) for one in given):
        raise SteerlensError(f"a list of prompts holds texts, or tuples of {', '.join(columns)}; got {given[0]!r:.60}")
    return pd.DataFrame(given, columns=columns)
