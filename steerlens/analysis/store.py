"""`Store`: finished conditions in an SQLite file, so that a sweep goes on where it was stopped.

What stands in the file is completions, never metrics: those are computed anew whenever a table is made, so a changed
metric needs no new run. Four tables: `run` (a condition's completions, under a key of everything they depend on), their
rows in `completion`, and the tables that sweeps make of them, `sweep` and `condition`. Several sweeps share a run whose
key is the same, the unsteered one for instance.

A run's rows and the note that it is finished are written in one transaction, so a process may be killed at any moment:
a run is there whole or not at all. Several processes may work on one store. Each says in `claimed` what it is at, which
only arranges who does what; a process that dies takes nothing with it, and a run that two have computed is kept once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlens.analysis.metrics import Metric
from steerlens.errors import SteerlensError
from steerlens.steering import Condition

VERSION = 1
"""Of the tables. A file of another version is refused, never changed."""
_APPLICATION = 0x73744C73  # "stLs": tells a store from other people's SQLite files
# Part of every key. To be raised when the same job would give other completions than before.
_REVISION = 1
# Transactions take milliseconds; whoever holds the file for a minute is stuck.
_BUSY_SECONDS = 60.0
_MAGIC = b"SQLite format 3\0"

_SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL,
    claimed REAL, finished REAL, digest TEXT, receipts TEXT
);
CREATE TABLE completion (
    run INTEGER NOT NULL REFERENCES run, prompt INTEGER NOT NULL, sample INTEGER NOT NULL,
    completion TEXT NOT NULL, n_tokens INTEGER NOT NULL, finished INTEGER NOT NULL,
    PRIMARY KEY (run, prompt, sample)
) WITHOUT ROWID;
CREATE TABLE sweep (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, started REAL NOT NULL,
    settings TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE TABLE condition (
    sweep INTEGER NOT NULL REFERENCES sweep, number INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES run,
    label TEXT NOT NULL, role TEXT NOT NULL, layer INTEGER, coeff REAL, placement TEXT NOT NULL,
    PRIMARY KEY (sweep, number)
) WITHOUT ROWID;
"""
_SETTINGS = ("model", "weights", "what", "max_new_tokens", "temperature", "top_k", "top_p", "frequency_penalty")


def refuse_other_files(path: Path, what: str) -> None:
    """Nothing for a new, an empty or an SQLite file; SQLite itself takes other people's very short files for empty.

    Raises:
        SteerlensError: another file, which would be written over, or one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise SteerlensError(f"{path} cannot be used as a {what}: {error.strerror}; give another file name") from error
    if begin and begin != _MAGIC:
        raise SteerlensError(f"{path} is no {what}; give another file name")


@dataclass(frozen=True)
class Planned:
    """A condition of a sweep as its table shows it, and the key of its completions."""

    label: str
    role: str
    layer: int | None
    coeff: float
    placement: str
    key: str

    @staticmethod
    def of(condition: Condition, role: str, *, job: str) -> Planned:
        """The condition in a job (see `job_key`)."""
        key = run_key(condition, job=job)
        return Planned(condition.label, role, condition.layer, condition.coeff, condition.placement, key)


def run_key(condition: Condition, *, job: str) -> str:
    """32 hexadecimal digits for a condition's completions in a job (see `job_key`): its vectors, layers, placements."""
    digest = hashlib.blake2b(job.encode(), digest_size=16, person=b"steerlens run")
    for injection in condition.injections:
        values = injection.vector.values.detach().cpu().contiguous()
        digest.update(json.dumps([injection.vector.layer, injection.placement, list(values.shape)]).encode())
        digest.update(values.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def job_key(weights: str, prompts: Sequence[str], ids: Sequence[Sequence[int]], sampling: Mapping[str, Any]) -> str:
    """What the completions of all conditions of a job depend on, as text.

    `weights` is the model's `fingerprint`; `sampling` holds n, max_new_tokens, seed and the settings of `Sampling`.
    The batch size, the device and the other conditions of the job are left out: completions do not depend on them.
    """
    return json.dumps([_REVISION, weights, list(prompts), [list(row) for row in ids], dict(sorted(sampling.items()))])


class Store:
    """An open store. `with Store(path) as store: …`; None keeps it in memory.

    Raises:
        SteerlensError: here and in every method, in one line: no place to write, a full disk, a file that is no store,
            is damaged, or is of another version. What the file held stays as it was.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path).expanduser().absolute()
        if self.path is None:
            self._db = sqlite3.connect(":memory:", isolation_level=None)
        else:
            if self.path.is_dir():
                raise SteerlensError(f"cannot keep a store at {self.path}: it is a folder; give a file name in it")
            if not self.path.parent.is_dir():
                raise SteerlensError(f"cannot keep a store at {self.path}: its folder does not exist; make it first")
            refuse_other_files(self.path, "steerlens store")
            with self._told():
                self._db = _connect(self.path, "rwc")
        try:
            self._set_up()
            self._file = None if self.path is None else _identity(self.path)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()

    def register(self, planned: Sequence[Planned], *, rows: int, settings: Mapping[str, Any]) -> int:
        """The number of the sweep of these conditions, new or known; `rows` are those of each condition."""
        columns = [(p.label, p.role, p.layer, p.coeff, p.placement, p.key) for p in planned]
        key = _digest(columns)
        with self._transaction() as db:
            known = db.execute("SELECT id FROM sweep WHERE key = ?", (key,)).fetchone()
            if known is not None:
                return int(known[0])
            text = json.dumps(dict(settings), default=str)
            sweep = db.execute(
                "INSERT INTO sweep (key, started, settings, digest) VALUES (?, ?, ?, ?)",
                (key, time.time(), text, _digest(text)),
            )
            db.executemany("INSERT OR IGNORE INTO run (key, rows) VALUES (?, ?)", [(p.key, rows) for p in planned])
            db.executemany(
                "INSERT INTO condition SELECT ?, ?, id, ?, ?, ?, ?, ? FROM run WHERE key = ?",
                [(sweep.lastrowid, number, *row) for number, row in enumerate(columns)],
            )
            return int(sweep.lastrowid or 0)

    def missing(self, sweep: int) -> dict[str, float | None]:
        """The keys of unfinished runs of a sweep, each with the time at which somebody said he is at it."""
        with self._told():
            return dict(
                self._db.execute(
                    "SELECT DISTINCT key, claimed FROM condition JOIN run ON run.id = run "
                    "WHERE sweep = ? AND finished IS NULL",
                    (sweep,),
                )
            )

    def claim(
        self, sweep: int, parts: Sequence[Sequence[str]], *, mine: frozenset[str] = frozenset(), patience: float = 0.0
    ) -> tuple[str, ...]:
        """The keys to compute next: what is missing of one of `parts`; none if there is nothing (now) to do.

        What nobody has claimed comes first, then what was claimed longest ago: its process was killed, or is slow.
        Claims of the last `patience` seconds are respected. Who comes too late loses time, never data.

        Args:
            parts: keys that are computed together.
            mine: keys that this process is at.
        """
        with self._transaction() as db:
            missing = self.missing(sweep)
            todo = [tuple(key for key in part if key in missing and key not in mine) for part in parts]
            todo = [keys for keys in todo if keys]
            if not todo:
                return ()
            since = [max(missing[key] or 0.0 for key in keys) for keys in todo]
            oldest = min(range(len(todo)), key=since.__getitem__)
            now = time.time()
            if 0 <= now - since[oldest] < patience:
                return ()
            db.executemany("UPDATE run SET claimed = ? WHERE key = ?", [(now, key) for key in todo[oldest]])
            return todo[oldest]

    def write(self, runs: Mapping[str, pd.DataFrame]) -> None:
        """Keep the completions (rows of `generate`, one condition each) of these keys, in one transaction."""
        if self.path is not None and _identity(self.path) != self._file:
            raise SteerlensError(f"the store {self.path} was removed or replaced while it was in use; run again")
        with self._transaction() as db:
            for key, frame in runs.items():
                rows = _rows(frame)
                receipts = json.dumps(frame.attrs.get("receipts", [[]])[0])
                done = db.execute(
                    "UPDATE run SET finished = ?, digest = ?, receipts = ? WHERE key = ? AND finished IS NULL",
                    (time.time(), _digest([rows, receipts]), receipts, key),
                )
                if done.rowcount == 0:  # somebody else was quicker
                    continue
                (run,) = db.execute("SELECT id FROM run WHERE key = ?", (key,)).fetchone()
                db.executemany("INSERT INTO completion VALUES (?, ?, ?, ?, ?, ?)", [(run, *row) for row in rows])

    def frame(self, sweep: int) -> pd.DataFrame:
        """The completions of a sweep's finished conditions: columns of `generate` and `role`; `attrs["receipts"]`."""
        records, receipts = [], []
        with self._told(reading=True):
            key, settings = self._db.execute("SELECT key, settings FROM sweep WHERE id = ?", (sweep,)).fetchone()
            settings = json.loads(settings)
            conditions = self._db.execute(
                "SELECT number, label, role, layer, coeff, placement, key, run, finished "
                "FROM condition JOIN run ON run.id = run WHERE sweep = ? ORDER BY number",
                (sweep,),
            ).fetchall()
            conditions = [(n, la, r, ly, math.nan if c is None else c, *rest) for n, la, r, ly, c, *rest in conditions]
            if _digest([columns[1:7] for columns in conditions]) != key:
                raise _damage(f"the conditions of sweep {sweep} are not those that were written")
            for number, label, role, layer, coeff, placement, _, run, finished in conditions:
                if finished is None:
                    continue
                rows, received = self._run(run)
                receipts.append(received)
                records += [
                    {
                        "condition": number,
                        "label": label,
                        "role": role,
                        "layer": layer,
                        "coeff": coeff,
                        "placement": placement,
                        "prompt": settings["prompts"][prompt],
                        "sample": sample,
                        "completion": completion,
                        "n_tokens": n_tokens,
                        "finished": bool(ended),
                        "seed": settings["seed"],
                    }
                    for prompt, sample, completion, n_tokens, ended in rows
                ]
        frame = pd.DataFrame.from_records(records, columns=_COLUMNS).astype({"layer": "Int64"})
        frame.attrs["receipts"] = receipts
        return frame

    def sweeps(self) -> pd.DataFrame:
        """One row per sweep: sweep, settings (a mapping), conditions, finished (how many of them), started."""
        with self._told(reading=True):
            rows = self._db.execute(
                "SELECT sweep.id, settings, sweep.digest, count(*), count(finished), started FROM sweep "
                "JOIN condition ON sweep = sweep.id JOIN run ON run.id = run GROUP BY sweep.id ORDER BY sweep.id"
            ).fetchall()
            for sweep, settings, digest, *_ in rows:
                if _digest(settings) != digest:
                    raise _damage(f"the settings of sweep {sweep} are not those that were written")
            names = ["sweep", "settings", "conditions", "finished", "started"]
            return pd.DataFrame([(i, json.loads(settings), *rest) for i, settings, _, *rest in rows], columns=names)

    def _run(self, run: int) -> tuple[list[tuple[int, int, str, int, int]], list[dict[str, Any]]]:
        expected, digest, receipts = self._db.execute(
            "SELECT rows, digest, receipts FROM run WHERE id = ?", (run,)
        ).fetchone()
        rows = self._db.execute(
            "SELECT prompt, sample, completion, n_tokens, finished FROM completion "
            "WHERE run = ? ORDER BY prompt, sample",
            (run,),
        ).fetchall()
        if len(rows) != expected or _digest([rows, receipts]) != digest:
            raise _damage(f"the completions of run {run} are not those that were written")
        return rows, [one | {"positions": tuple(one["positions"])} for one in json.loads(receipts)]

    def _set_up(self) -> None:
        with self._told():
            self._db.execute("PRAGMA synchronous = FULL")  # finished conditions survive a power cut too
        with self._transaction() as db:
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables == 0 and _pragma(db, "application_id") == 0 and _pragma(db, "user_version") == 0:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {VERSION}")
            else:
                _check_ours(db, self.path)
        if self.path is not None:
            with self._told():
                _check_whole(self._db)
                _use_wal(self._db)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _told(self, *, reading: bool = False) -> Iterator[None]:
        """SQLite's errors in our words; while reading, also what comes of damage that SQLite does not see."""
        damage = (
            (UnicodeError, json.JSONDecodeError, LookupError, TypeError, OverflowError) if reading else UnicodeError
        )
        try:
            yield
        except sqlite3.Error as error:
            raise SteerlensError(_in_words(self.path, error)) from error
        except damage as error:
            raise SteerlensError(_in_words(self.path, _damage(f"{type(error).__name__}: {error}"))) from error


_COLUMNS = "condition label role layer coeff placement prompt sample completion n_tokens finished seed".split()


def read_store(path: str | Path, *, metrics: Sequence[Metric] = ()) -> pd.DataFrame:
    """Every finished completion of every sweep in a store, one row each; the file is not changed.

    Also while a sweep is running, and from a place that cannot be written to.

    Args:
        metrics: computed from the completions, one column each, as `sweep` does.

    Returns:
        Columns: sweep (number in the store), those of `sweep(...).frame`, one per metric, and the settings that tell
        sweeps apart: model, weights (the model's fingerprint), what, max_new_tokens, temperature, top_k, top_p,
        frequency_penalty. `frame.attrs["sweeps"]` lists each sweep's settings, and how many of its conditions there are
        and how many are finished. A condition that two sweeps have in common is in both.

    Raises:
        SteerlensError: no file, no store, a damaged one, or one of another version.
    """
    with _ReadOnly(path) as store:
        sweeps = store.sweeps()
        frames = []
        for sweep, settings in zip(sweeps["sweep"], sweeps["settings"], strict=True):
            frame = store.frame(sweep)
            frame.attrs = {}  # concat would compare them
            frame.insert(0, "sweep", sweep)
            for metric in metrics:
                frame[metric.name] = metric(frame["completion"]) if len(frame) else pd.Series(dtype=float)
            for name in _SETTINGS:
                value = settings.get(name)
                frame[name] = "; ".join(value) if isinstance(value, list) else value
            frames.append(frame.astype({"top_k": "Int64"}))
    kept = [frame for frame in frames if len(frame)]
    if kept:
        result = pd.concat(kept, ignore_index=True)
    else:
        result = pd.DataFrame(columns=["sweep", *_COLUMNS, *(m.name for m in metrics), *_SETTINGS])
    result.attrs["sweeps"] = sweeps.drop(columns="started").to_dict("records")
    return result


class _ReadOnly(Store):
    """A store that is only read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        if not self.path.is_file():
            raise SteerlensError(f"no store at {self.path}; give the path of one written with sweep(..., store=...)")
        with self._told(reading=True):
            self._db = _connect(self.path, "ro")
            try:
                self._db.execute("SELECT count(*) FROM sqlite_master")
            except sqlite3.OperationalError as error:
                # Where nothing can be written SQLite cannot share; if no writer left anything behind, none is needed.
                log = self.path.with_name(self.path.name + "-wal")
                closed = _code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                if not closed or (log.exists() and log.stat().st_size):
                    raise
                self._db.close()
                self._db = _connect(self.path, "ro&immutable=1")
        try:
            with self._told(reading=True):
                _check_ours(self._db, self.path)
                _check_whole(self._db)
        except BaseException:
            self._db.close()
            raise


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # isolation_level=None: transactions begin and end where this file says.
    return sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


def _use_wal(db: sqlite3.Connection) -> None:
    """Write-ahead logging, where the file system can do it; readers and a writer then do not wait for each other."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            # This one statement does not wait by itself when another process is opening the same new file.
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _check_ours(db: sqlite3.Connection, path: Path | None) -> None:
    if _pragma(db, "application_id") != _APPLICATION:
        raise SteerlensError(f"{path} is an SQLite file but no steerlens store; it stays as it is: give another path")
    version = _pragma(db, "user_version")
    if version != VERSION:
        raise SteerlensError(
            f"the store {path} has version {version} and this steerlens reads version {VERSION}; "
            f"use {'a newer' if version > VERSION else 'an older'} steerlens or give another path"
        )


def _check_whole(db: sqlite3.Connection) -> None:
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damage(verdict)


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _damage(what: str) -> sqlite3.DatabaseError:
    """To be told like what SQLite finds itself."""
    return sqlite3.DatabaseError(what)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _in_words(path: Path | None, error: sqlite3.Error) -> str:
    code = _code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return f"{path} is no steerlens store (not an SQLite file); it stays as it is: give another path"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process has kept the store {path} locked for {_BUSY_SECONDS:.0f} s; stop it, then run again"
    if code == sqlite3.SQLITE_FULL:
        return f"no space left for the store {path}; finished conditions are kept: make room, then run again"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return f"cannot use the store {path}: the place is read-only or closed ({error}); give another path"
    if code == sqlite3.SQLITE_IOERR:
        return (
            f"cannot write the store {path}: {error}, perhaps the disk is full; "
            "finished conditions are kept: make room, then run again"
        )
    return (
        f"the store {path} is damaged ({' '.join(str(error).split())[:120]}); it stays as it is: "
        "save what is left with `sqlite3 FILE .recover`, or give another path"
    )


def _rows(frame: pd.DataFrame) -> list[tuple[int, int, str, int, int]]:
    """(prompt, sample, completion, n_tokens, finished) of one condition; prompts by place, since two may be equal."""
    samples = frame["sample"].tolist()
    starts = pd.Series(samples).eq(0).cumsum() - 1
    values = zip(
        starts.tolist(),
        samples,
        frame["completion"],
        frame["n_tokens"].tolist(),
        frame["finished"].tolist(),
        strict=True,
    )
    return [(prompt, sample, text, n_tokens, int(finished)) for prompt, sample, text, n_tokens, finished in values]


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
