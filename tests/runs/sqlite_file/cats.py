"""A small kind of file, the book of cats, that SQLite files are tested with."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from steerlens.errors import SteerlensError
from steerlens.runs import sqlite_place
from steerlens.runs.sqlite_file import SqliteFile
from steerlens.runs.sqlite_place import FileKind

CATS = FileKind(
    name="book of cats",
    noun="book",
    holds="cats",
    made_by="meow",
    application=0x63617473,
    version=3,
    schema="CREATE TABLE cat (litter INTEGER NOT NULL, name INTEGER NOT NULL, UNIQUE (litter, name));\n",
)
LITTER = 5


def opened(path: Path | str | None, **settings: bool) -> SqliteFile:
    return SqliteFile(path, CATS, **settings)


def add(file: SqliteFile, litter: int) -> None:
    with file.transaction() as db:
        for name in range(LITTER):
            db.execute("INSERT OR IGNORE INTO cat VALUES (?, ?)", (litter, name))


def litters(path: Path) -> set[int]:
    """What a file holds, read without steerlens; checks that no litter is there in part."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set()  # killed before there was a table
        counts = dict(db.execute("SELECT litter, count(*) FROM cat GROUP BY litter"))
        assert set(counts.values()) <= {LITTER}
        return set(counts)


def told(match: str, use: Callable[[], object]) -> None:
    with pytest.raises(SteerlensError, match=match) as error:
        use()
    assert "\n" not in str(error.value)


def lie_on(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = folder / "mounts"
    kind = {"disk": "ext4", "network": "nfs4"}[what]
    mounts.write_text(f"21 1 8:1 / / rw,relatime shared:1 - {kind} server:/home rw\n")
    monkeypatch.setattr(sqlite_place, "_MOUNTS", mounts)


def journal(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return str(db.execute("PRAGMA journal_mode").fetchone()[0])
