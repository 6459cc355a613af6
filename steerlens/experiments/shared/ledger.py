"""`Ledger`: finished parts of an experiment in an SQLite file, from which an interrupted run resumes.

A part is whatever the experiment computes in one go: a hundred documents, a batch of prompts, one seed. It is kept
under everything that it depends on, in one transaction: after a kill it is there as a whole or not at all. A ledger
may be shared by experiments, models and settings; parts of other settings are not found, and stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from steerlens.models import HookedModel, fingerprint
from steerlens.runs.sqlite_file import SqliteFile, damage
from steerlens.runs.sqlite_place import FileKind

T = TypeVar("T")

_KIND = FileKind(
    name="ledger of experiments",
    noun="ledger",
    holds="finished parts",
    made_by="an experiment's store=...",
    application=0x73744C6C,  # "stLl"
    version=0,
    schema="CREATE TABLE part (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;\n",
)


class Ledger:
    """An open ledger. `with Ledger(path) as ledger: …`; None keeps nothing beyond the `with`.

    Raises:
        SteerlensError: in one line: no place to write, a full disk, a file that is no ledger, is damaged, is of another
            version, or is taken away. The parts that it held stay as they were.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._file = SqliteFile(path, _KIND)
        self.path = self._file.path

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def remember(self, depends: Mapping[str, Any], compute: Callable[[], T]) -> T:
        """The part that depends on exactly `depends`: from the file, or computed now and kept.

        Args:
            depends: plain data (text, numbers, lists, mappings): `model_key`, settings, seed, which part.
            compute: gives plain data. Numbers come back bit by bit, tuples as lists.
        """
        key = self.key(depends)
        text = self._kept(key)
        if text is None:
            computed = json.dumps(compute())
            with self._file.transaction() as db:
                db.execute("INSERT OR IGNORE INTO part VALUES (?, ?, ?)", (key, computed, _digest(computed)))
            # What was just computed is read back too: a resumed run sees the very same values and types. And if another
            # process was quicker, what it has kept is what counts.
            text = self._kept(key)
            if text is None:
                raise self._file.taken_away()
        return json.loads(text)

    def knows(self, depends: Mapping[str, Any]) -> bool:
        """Whether the part is kept already."""
        return self._kept(self.key(depends)) is not None

    def model_key(self, model: HookedModel) -> str:
        """What stands for a model in `depends`. Ask before any work: a model that cannot be told apart is refused.

        A ledger without a file lives no longer than the call, so there any model will do, hooks of the user included.

        Raises:
            SteerlensError: the ledger has a file, and the model has hooks or weights that are not in memory.
        """
        return uuid4().hex if self.path is None else fingerprint(model)

    @staticmethod
    def key(depends: Mapping[str, Any]) -> str:
        """32 hexadecimal digits that stand for `depends`."""
        return _digest(json.dumps(depends, sort_keys=True))

    def _kept(self, key: str) -> str | None:
        with self._file.reading() as db:
            row = db.execute("SELECT value, digest FROM part WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            text, digest = row
            if not isinstance(text, str) or _digest(text) != digest:
                raise damage(f"part {key} is not what was written")
            return text


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
