"""`Store`: finished conditions in an SQLite file, so that a sweep resumes where it was stopped.

The file holds completions, never metrics: those are recomputed whenever a table is made, so a changed metric needs no
new run. Four tables: `run` (a condition's completions, under a key of everything they depend on), their rows in
`completion`, and the tables that sweeps make of them, `sweep` and `condition`. Several sweeps share a run with the same
key, such as the unsteered one.

A run's rows and the mark that it is finished are written in one transaction, so a process may be killed at any moment:
a run is stored whole or not at all. Several processes may work on one store. Each records in `claimed` what it is
working on, which only divides the work; a process that dies loses nothing for the others, and a run that two have
computed is kept once.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steerlens.arguments import path_to
from steerlens.errors import SteerlensError
from steerlens.measures.measuring import check_metrics, measured, texts_of
from steerlens.measures.metrics import Metric
from steerlens.runs.run_keys import Planned
from steerlens.runs.sqlite_file import SqliteFile, damage
from steerlens.runs.sqlite_place import FileKind

VERSION = 2
"""Of the tables. A file of another version is refused, never changed."""
_SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL,
    claimed REAL, finished REAL, digest TEXT, receipts TEXT
);
CREATE TABLE completion (
    run INTEGER NOT NULL REFERENCES run, prompt INTEGER NOT NULL, sample INTEGER NOT NULL,
    completion TEXT NOT NULL, n_tokens INTEGER NOT NULL, finished INTEGER NOT NULL, surprise REAL,
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
_KIND = FileKind(
    name="steerlens store",
    noun="store",
    holds="finished conditions",
    made_by="sweep(..., store=...)",
    application=0x73744C73,  # "stLs"
    version=VERSION,
    schema=_SCHEMA,
)
_SETTINGS = (
    "model",
    "weights",
    "dtype",
    "what",
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "frequency_penalty",
)


class Store:
    """An open store. `with Store(path) as store: …`; None keeps it in memory.

    Args:
        writable: False to only read an existing one. It is not changed, and may be on a read-only medium.

    Raises:
        SteerlensError: here and in every method, in one line: no write permission, a full disk, a file that is not a
            store, is damaged, has another version, or was removed. What the file held is left unchanged.
    """

    def __init__(self, path: str | Path | None, *, writable: bool = True) -> None:
        self._file = SqliteFile(path, _KIND, writable=writable)
        self.path = self._file.path

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def register(self, planned: Sequence[Planned], *, rows: int, settings: Mapping[str, Any]) -> int:
        """The number of the sweep of these conditions, new or known; `rows` are those of each condition."""
        columns = [(p.label, p.role, p.layer, p.coeff, p.placement, p.key) for p in planned]
        key = _digest(columns)
        with self._file.transaction() as db:
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
        """The keys of a sweep's unfinished runs, each with the time at which a process last claimed it."""
        with self._file.reading() as db:
            return dict(
                db.execute(
                    "SELECT DISTINCT key, claimed FROM condition JOIN run ON run.id = run "
                    "WHERE sweep = ? AND finished IS NULL",
                    (sweep,),
                )
            )

    def claim(
        self, sweep: int, parts: Sequence[Sequence[str]], *, mine: frozenset[str] = frozenset(), patience: float = 0.0
    ) -> tuple[str, ...]:
        """The keys to compute next: what is missing from one of `parts`; none if there is nothing to do (right now).

        Unclaimed runs come first, then those claimed longest ago, whose process was killed or is slow. Claims from the
        last `patience` seconds are respected. If two processes compute the same run, time is lost but never data.

        Args:
            parts: keys that are computed together.
            mine: keys that this process is working on.
        """
        with self._file.transaction() as db:
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
        """Keep the completions (rows of `generate`, one condition each) of these keys, in one transaction.

        What another process has written in the meantime stays. A run that is not planned, or has another number of
        completions than planned, is refused together with the rest: once in the file it would look like damage.
        """
        with self._file.transaction() as db:
            for key, frame in runs.items():
                rows = _rows(frame)
                known = db.execute("SELECT id, rows, finished FROM run WHERE key = ?", (key,)).fetchone()
                if known is None:
                    raise self._file.taken_away()
                run, expected, finished = known
                if len({row[:2] for row in rows}) != expected:
                    raise SteerlensError(
                        f"a condition of {expected} completions was given {len(rows)}; nothing is kept"
                    )
                if finished is not None:  # another process was quicker
                    continue
                receipts = json.dumps(frame.attrs.get("receipts", [[]])[0])
                db.execute(
                    "UPDATE run SET finished = ?, digest = ?, receipts = ? WHERE id = ?",
                    (time.time(), _digest([rows, receipts]), receipts, run),
                )
                db.executemany("INSERT INTO completion VALUES (?, ?, ?, ?, ?, ?, ?)", [(run, *row) for row in rows])

    def frame(self, sweep: int) -> pd.DataFrame:
        """The completions of a sweep's finished conditions: columns of `generate` and `role`; `attrs["receipts"]`."""
        records, receipts = [], []
        with self._file.reading() as db:
            key, settings = db.execute("SELECT key, settings FROM sweep WHERE id = ?", (sweep,)).fetchone()
            settings = json.loads(settings)
            conditions = db.execute(
                "SELECT number, label, role, layer, coeff, placement, key, run, finished "
                "FROM condition JOIN run ON run.id = run WHERE sweep = ? ORDER BY number",
                (sweep,),
            ).fetchall()
            conditions = [(n, la, r, ly, math.nan if c is None else c, *rest) for n, la, r, ly, c, *rest in conditions]
            if _digest([columns[1:7] for columns in conditions]) != key:
                raise damage(f"the conditions of sweep {sweep} are not those that were written")
            for number, label, role, layer, coeff, placement, _, run, finished in conditions:
                if finished is None:
                    continue
                rows, received = _run(db, run)
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
                        "surprise": math.nan if surprise is None else surprise,
                        "seed": settings["seed"],
                    }
                    for prompt, sample, completion, n_tokens, ended, surprise in rows
                ]
        frame = pd.DataFrame.from_records(records, columns=_COLUMNS).astype({"layer": "Int64"})
        frame.attrs["receipts"] = receipts
        return frame

    def sweeps(self) -> pd.DataFrame:
        """One row per sweep: sweep, settings (a mapping), conditions and finished (how many), started."""
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT sweep.id, settings, sweep.digest, count(*), count(finished), started FROM sweep "
                "JOIN condition ON sweep = sweep.id JOIN run ON run.id = run GROUP BY sweep.id ORDER BY sweep.id"
            ).fetchall()
            for sweep, settings, digest, *_ in rows:
                if _digest(settings) != digest:
                    raise damage(f"the settings of sweep {sweep} are not those that were written")
            names = ["sweep", "settings", "conditions", "finished", "started"]
            return pd.DataFrame([(i, json.loads(settings), *rest) for i, settings, _, *rest in rows], columns=names)


_COLUMNS = "condition label role layer coeff placement prompt sample completion n_tokens finished surprise seed".split()


def read_store(path: str | Path, *, metrics: Sequence[Metric] = ()) -> pd.DataFrame:
    """Every finished completion of every sweep in a store, one row each; the file is not changed.

    Works while a sweep is running, and on a read-only medium.

    Args:
        metrics: computed from the completions, one column each, as `sweep` does.

    Returns:
        Columns: sweep (number in the store), those of `sweep(...).frame`, one per metric, and the settings that tell
        sweeps apart: model, weights (the model's fingerprint), dtype, what, max_new_tokens, temperature, top_k,
        top_p, frequency_penalty. `frame.attrs["sweeps"]` lists each sweep's settings, and how many of its
        conditions there are and how many are finished. A condition that two sweeps have in common is in both.

    Raises:
        SteerlensError: no such file, not a store, a damaged one, or one with another version.
    """
    path, metrics = path_to(path), check_metrics(metrics)
    with Store(path, writable=False) as store:
        sweeps = store.sweeps()
        frames = []
        for sweep, settings in zip(sweeps["sweep"], sweeps["settings"], strict=True):
            frame = store.frame(sweep)
            frame.attrs = {}  # concat would compare them
            frame.insert(0, "sweep", sweep)
            for metric in metrics:
                frame[metric.column] = measured(metric, texts_of(frame))
            for name in _SETTINGS:
                value = settings.get(name)
                frame[name] = "; ".join(value) if isinstance(value, list) else value
            frames.append(frame.astype({"top_k": "Int64"}))
    kept = [frame for frame in frames if len(frame)]
    if kept:
        result = pd.concat(kept, ignore_index=True)
    else:
        result = pd.DataFrame(columns=["sweep", *_COLUMNS, *(m.column for m in metrics), *_SETTINGS])
    result.attrs["sweeps"] = sweeps.drop(columns="started").to_dict("records")
    return result


_Row = tuple[int, int, str, int, int, float | None]
"""prompt, sample, completion, n_tokens, finished, surprise; prompts by place, since two may be equal."""


def _run(db: sqlite3.Connection, run: int) -> tuple[list[_Row], list[dict[str, Any]]]:
    expected, digest, receipts = db.execute("SELECT rows, digest, receipts FROM run WHERE id = ?", (run,)).fetchone()
    rows = db.execute(
        "SELECT prompt, sample, completion, n_tokens, finished, surprise FROM completion "
        "WHERE run = ? ORDER BY prompt, sample",
        (run,),
    ).fetchall()
    if len(rows) != expected or _digest([rows, receipts]) != digest:
        raise damage(f"the completions of run {run} are not those that were written")
    return rows, [_receipt(one) for one in json.loads(receipts)]


def _receipt(kept: dict[str, Any]) -> dict[str, Any]:
    """A receipt as `generate` gives it: JSON has lists for its tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}


def _rows(frame: pd.DataFrame) -> list[_Row]:
    """The completions of one condition."""
    samples = frame["sample"].tolist()
    starts = pd.Series(samples).eq(0).cumsum() - 1
    values = zip(
        starts.tolist(),
        samples,
        frame["completion"],
        frame["n_tokens"].tolist(),
        frame["finished"].tolist(),
        frame["surprise"].tolist() if "surprise" in frame else [math.nan] * len(frame),
        strict=True,
    )
    # SQLite has no NaN: a completion without tokens, or one that was not measured, has no surprise.
    return [
        (prompt, sample, text, n_tokens, int(finished), None if math.isnan(surprise) else surprise)
        for prompt, sample, text, n_tokens, finished, surprise in values
    ]


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
