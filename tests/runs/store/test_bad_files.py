"""A file that is no good store says so; nothing is written where the settings are bad."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import steerlens as sl
from steerlens.runs import store
from tests.runs.store.runs import CONDITIONS, contents, run, told


def test_a_file_that_is_no_store(model: Any, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, whatever its name\n" * 50)
    short = tmp_path / "short.txt"
    short.write_text("x")  # to SQLite as good as empty: it would write over it
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (x)")
        db.execute("INSERT INTO mine VALUES (1)")
        db.commit()
    for path, match in (
        (text, "no steerlens store"),
        (short, "no steerlens store"),
        (other, "SQLite file but no steerlens store"),
    ):
        before = path.read_bytes()
        told(path, match, model)
        assert path.read_bytes() == before


def test_another_version(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    run(model, path)
    for version, words_ in ((99, "a newer steerlens"), (0, "an older steerlens")):
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        told(path, f"has version {version}.*{words_}", model)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {store.VERSION}")
    assert len(contents(path)) == CONDITIONS


def test_a_damaged_store(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    """Truncated, overwritten, one letter changed: an error in one line, or, where nothing was hit, the whole table."""
    whole = tmp_path / "whole.sqlite"
    run(model, whole)
    with closing(sqlite3.connect(whole)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    data = whole.read_bytes()
    truncated = tmp_path / "truncated.sqlite"
    truncated.write_bytes(data[: len(data) // 2])
    told(truncated, "damaged", model)
    moments = random.Random(1)
    errors = 0
    path = tmp_path / "damaged.sqlite"
    for trial in range(int(os.environ.get("STEERLENS_DAMAGES", "40"))):
        damaged = bytearray(data)
        start = moments.randrange(100, len(data) - 64)
        for place in range(start, start + (1 if trial % 2 else 64)):
            damaged[place] ^= moments.randrange(1, 256)
        for left in tmp_path.glob("damaged.sqlite*"):
            left.unlink()
        path.write_bytes(bytes(damaged))
        try:
            frame = sl.read_store(path)
        except sl.SteerlensError:
            errors += 1
        else:
            columns = list(expected.columns[:-1])  # all but the metric
            pd.testing.assert_frame_equal(frame[columns], expected[columns], check_exact=True)
    assert errors > 5


def test_one_changed_letter_is_found(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    run(model, path)
    for statement in (
        "UPDATE completion SET completion = completion || 'x' WHERE run = 3 AND sample = 1 AND prompt = 0",
        "DELETE FROM completion WHERE run = 5 AND sample = 0",
        "UPDATE condition SET layer = 1 WHERE number = 1",
        "UPDATE sweep SET settings = replace(settings, '\"seed\": 0', '\"seed\": 1')",
    ):
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN")
            assert db.execute(statement).rowcount
            db.execute("COMMIT")
            told(path, "damaged.*not those that were written")
        path.unlink()
        run(model, path)


def test_hooks_on_the_model_are_refused(model: Any, tmp_path: Path) -> None:
    """A key made of weights alone would pass the results of a hooked model off as the model's."""
    hook = ("blocks.1.hook_resid_pre", lambda resid, hook: resid * 1.1)
    with model.hooks(fwd_hooks=[hook]), pytest.raises(sl.SteerlensError, match=r"hooks of yours at blocks\.1"):
        run(model, tmp_path / "runs.sqlite")


def test_bad_settings_leave_no_file(model: Any, tmp_path: Path) -> None:
    for change in ({"n": 0}, {"top_p": 0.0}, {"engine": "cloud"}, {"layers": [99]}):
        with pytest.raises(sl.SteerlensError):
            run(model, tmp_path / "runs.sqlite", **change)
    assert list(tmp_path.iterdir()) == []
