"""A small sweep, its table, and what a store holds, read without steerlens."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import steerlens as sl

PAIR = sl.PromptPair(" weddings", " ")
PROMPTS = ["I went up to my friend and said", "The weather today is"]
N = 2
ROWS = N * len(PROMPTS)
CONDITIONS = 7


def run(model: Any, path: Path | None, **changes: Any) -> sl.Sweep:
    """A sweep of 7 conditions in 4 parts, a few hundredths of a second each."""
    settings = {"coeffs": [2.0], "n": N, "max_new_tokens": 3, "batch_size": 2 * ROWS, "controls": "random"} | changes
    return sl.sweep(model, PAIR, PROMPTS, store=path, **settings)


def same(frame: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal to the last bit: values, types, columns, order, receipts."""
    pd.testing.assert_frame_equal(frame, expected, check_exact=True)
    for mine, theirs in zip(frame.attrs["receipts"], expected.attrs["receipts"], strict=True):
        assert [one | {"applications": 0} for one in mine] == [one | {"applications": 0} for one in theirs]


def contents(path: Path) -> dict[str, int]:
    """Rows of every run by key, read without steerlens; checks that no run is there in part or twice."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return {}  # killed before there were tables
        runs = db.execute(
            "SELECT key, finished IS NOT NULL, (SELECT count(*) FROM completion WHERE run = run.id) FROM run"
        ).fetchall()
        assert all(count == (ROWS if finished else 0) for _, finished, count in runs)
        total, distinct = db.execute(
            "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT run, prompt, sample FROM completion)) "
            "FROM completion"
        ).fetchone()
        assert total == distinct == sum(count for *_, count in runs)
        return {key: count for key, finished, count in runs if finished}


def told(path: Path | str, match: str, model: Any = None) -> None:
    """Both faces of a store say in one line what is wrong."""
    for use in (lambda: sl.read_store(path), *([lambda: run(model, path)] if model is not None else [])):  # type: ignore[arg-type]
        with pytest.raises(sl.SteerlensError, match=match) as error:
            use()
        assert "\n" not in str(error.value)
