"""`Ledger`: finished parts of an experiment in an SQLite file, so that it goes on where it was stopped.

A part is whatever the experiment computes in one go: a hundred documents, a batch of prompts, one seed. It is kept
under everything that it depends on, in one transaction: after a kill it is there whole or not at all. A ledger may be
shared by experiments, models and settings; parts of other settings are not found, and stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from steerlens.analysis.store import refuse_other_files
from steerlens.errors import SteerlensError

T = TypeVar("T")

_APPLICATION = 0x73744C6C  # "stLl": tells a ledger from other people's SQLite files
_BUSY_SECONDS = 60.0


class Ledger:
    """An open ledger. `with Ledger(path) as ledger: …`; None keeps nothing beyond the `with`.

    Raises:
        SteerlensError: in one line: no place to write, a full disk, a file that is no ledger or is damaged.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path).expanduser().absolute()
        if self.path is not None and not self.path.parent.is_dir():
            raise SteerlensError(f"cannot keep a ledger at {self.path}: its folder does not exist; make it first")
        if self.path is not None:
            refuse_other_files(self.path, "ledger of experiments")
        with self._told():
            self._db = sqlite3.connect(self.path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            with self._told():
                self._set_up()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()

    def remember(self, depends: Mapping[str, Any], compute: Callable[[], T]) -> T:
        """The part that depends on exactly `depends`: from the file, or computed now and kept.

        Args:
            depends: plain data (text, numbers, lists, mappings): model fingerprint, settings, seed, which part.
            compute: gives plain data. Numbers come back bit by bit, tuples as lists.
        """
        key = self.key(depends)
        with self._told():
            row = self._db.execute("SELECT value, digest FROM part WHERE key = ?", (key,)).fetchone()
        if row is None:
            # Also what was just computed goes through JSON: a resumed run sees the very same types.
            text = json.dumps(compute())
            with self._told():
                self._db.execute("INSERT OR IGNORE INTO part VALUES (?, ?, ?)", (key, text, _digest(text)))
            return json.loads(text)
        text, digest = row
        if _digest(text) != digest:
            raise SteerlensError(f"the ledger {self.path} is damaged; move it away and run again")
        return json.loads(text)

    def knows(self, depends: Mapping[str, Any]) -> bool:
        """Whether the part is kept already."""
        with self._told():
            return self._db.execute("SELECT 1 FROM part WHERE key = ?", (self.key(depends),)).fetchone() is not None

    @staticmethod
    def key(depends: Mapping[str, Any]) -> str:
        """32 hexadecimal digits that stand for `depends`."""
        return _digest(json.dumps(depends, sort_keys=True))

    def _set_up(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        ours = self._db.execute("PRAGMA application_id").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if ours != _APPLICATION and (ours or tables):
            raise SteerlensError(f"{self.path} is no ledger of experiments; give another file name")
        self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS part (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL)"
            " WITHOUT ROWID"
        )
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA journal_mode = WAL")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise SteerlensError(f"the ledger {self.path} cannot be used: {error}; give another file name") from error


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
