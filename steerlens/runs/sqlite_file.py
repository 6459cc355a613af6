"""`SqliteFile`: an SQLite file of one kind, opened with care, its errors put into words. Its users know its contents.

Nothing that was committed is lost, no matter which process is killed or when. A file of another program or version, or
a damaged one, is refused and left unchanged. Several processes may have one open, even on several machines if the file
system supports locks.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from steerlens.errors import SteerlensError
from steerlens.runs.sqlite_place import (
    FileKind,
    Identity,
    beside,
    check_place,
    has_content,
    identity,
    on_this_machine,
    places,
)

# Transactions take milliseconds; a process that holds the file for a minute is stuck.
_BUSY_SECONDS = 60.0


class SqliteFile:
    """An open file of a kind, created if it does not exist; None keeps it in memory.

    Args:
        writable: False to only read an existing file, even on a read-only medium. It is not changed.

    Raises:
        SteerlensError: here and in every method, in one line: no such folder, no write permission, a full disk, a file
            that is of another kind or version, is damaged, or was removed while it was open.
    """

    def __init__(self, path: str | Path | None, kind: FileKind, *, writable: bool = True) -> None:
        self.path: Path | None = None
        self._kind = kind
        self._place: Path | None = None
        self._identity: tuple[Identity, Identity] | None = None
        if path is not None:
            # SQLite keeps its log next to the file that a link points to, so that is where to look for it.
            self.path, self._place = places(path, kind)
            check_place(self.path, self._place, kind, writable=writable)
        with self._told():
            self._db = self._open_to_write() if writable else self._open_to_read()
        try:
            if writable:
                self._set_up(opened=None if self._place is None else identity(self._place))
            else:
                with self.reading() as db:
                    if _is_empty(db):
                        raise SteerlensError(f"the {kind.noun} {self.path} is empty: nothing has been written to it")
                    self._check_ours()
                    _check_whole(db)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close it. What was committed is safe, whether it is closed or not."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything done inside the `with` is on disk when it ends; after an error, none of it is."""
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._check_there()
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise
            self._check_there()  # or it may have gone into a file that nobody finds again

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For reading; errors caused by damage that SQLite does not notice are reported as damage too. See `damage`."""
        try:
            with self._told():
                yield self._db
        except (UnicodeError, json.JSONDecodeError, LookupError, TypeError, OverflowError) as error:
            raise SteerlensError(self._in_words(damage(f"{type(error).__name__}: {error}"))) from error

    def taken_away(self) -> SteerlensError:
        """The error to raise for a file that is no longer the one that was opened."""
        return SteerlensError(
            f"the {self._kind.noun} {self.path} was removed or replaced while it was in use; run again"
        )

    def _open_to_write(self) -> sqlite3.Connection:
        db = _connect(self._place, "rwc")
        try:
            _pragma(db, "user_version")
        except sqlite3.OperationalError as error:
            db.close()
            unshared = _code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
            if self._place is None or on_this_machine(self._place) or not unshared:
                raise
            # A file with a write-ahead log was moved to where processes share no memory. One process can do without it.
            db = _connect(self._place, "rwc")
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        except BaseException:
            db.close()
            raise
        return db

    def _set_up(self, *, opened: Identity) -> None:
        with self._told():
            self._db.execute("PRAGMA synchronous = EXTRA")  # what was committed survives even a power cut
        with self.transaction() as db:
            if _is_empty(db):
                for statement in self._kind.schema.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {self._kind.application}")
                db.execute(f"PRAGMA user_version = {self._kind.version}")
            else:
                self._check_ours()
        if self._place is not None:
            with self._told():
                _check_whole(self._db)
                _use_journal(self._db, "WAL" if on_this_machine(self._place) else "DELETE")
                self._db.execute("PRAGMA locking_mode = NORMAL")
                _pragma(self._db, "user_version")  # reading opens the log, or releases the lock
            # The log stays until this connection ends: removing it would take commits with it.
            self._identity = (opened, identity(beside(self._place, "-wal")))
            self._check_there()

    def _open_to_read(self) -> sqlite3.Connection:
        assert self._place is not None
        db = _connect(self._place, "ro")
        try:
            _pragma(db, "user_version")
            return db
        except sqlite3.OperationalError as error:
            db.close()
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
                raise
            # Where nothing can be written, or no memory can be shared, SQLite does not read a file that has had a
            # write-ahead log. If no writer left anything behind, the log is not needed.
            if any(has_content(beside(self._place, log)) for log in ("-wal", "-journal")):
                raise SteerlensError(
                    f"the {self._kind.noun} {self.path} was left by a process that was killed; run that again, or copy "
                    "the file with those beside it (-wal, -journal) to a place that can be written, and read it there"
                ) from error
        except BaseException:
            db.close()
            raise
        return _connect(self._place, "ro&immutable=1")

    def _check_ours(self) -> None:
        kind = self._kind
        if _pragma(self._db, "application_id") != kind.application:
            raise SteerlensError(
                f"{self.path} is an SQLite file but no {kind.name}; it stays as it is: give another path"
            )
        version = _pragma(self._db, "user_version")
        if version != kind.version:
            raise SteerlensError(
                f"the {kind.noun} {self.path} has version {version} and this steerlens reads version {kind.version}; "
                f"use {'a newer' if version > kind.version else 'an older'} steerlens or give another path"
            )

    def _check_there(self) -> None:
        if not self._is_there():
            raise self.taken_away()

    def _is_there(self) -> bool:
        if self._place is None or self._identity is None:
            return True
        file, log = self._identity
        if log is not None and identity(beside(self._place, "-wal")) != log:
            return False
        return identity(self._place) == file and has_content(self._place)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SteerlensError(self._in_words(error)) from error
        except UnicodeDecodeError as error:
            raise SteerlensError(self._in_words(damage(str(error)))) from error

    def _in_words(self, error: sqlite3.Error) -> str:
        file, kind, code = f"the {self._kind.noun} {self.path}", self._kind, _code(error)
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return f"cannot use {file}: {str(error).split('. ')[0].rstrip('.')}; open it in the thread that uses it"
        moved = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED
        if moved or not self._is_there():  # which may be told as almost anything
            return str(self.taken_away())
        if code == sqlite3.SQLITE_NOTADB:
            return f"{self.path} is no {kind.name} (not an SQLite file); it stays as it is: give another path"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            return f"another process has kept {file} locked for {_BUSY_SECONDS:.0f} s; stop it, then run again"
        if code == sqlite3.SQLITE_FULL:
            return f"no space left for {file}; {kind.holds} are kept: make room, then run again"
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            return f"cannot use {file}: the place is read-only or closed ({error}); give another path"
        if code == sqlite3.SQLITE_IOERR:
            return (
                f"cannot write {file}: {error}, perhaps the disk is full; "
                f"{kind.holds} are kept: make room, then run again"
            )
        return (
            f"{file} is damaged ({' '.join(str(error).split())[:120]}); it stays as it is: "
            "save what is left with `sqlite3 FILE .recover`, or give another path"
        )


def damage(what: str) -> sqlite3.DatabaseError:
    """An error to raise within `reading` or `transaction`: reported like damage that SQLite finds itself."""
    return sqlite3.DatabaseError(what)


def _connect(place: Path | None, mode: str) -> sqlite3.Connection:
    # isolation_level=None: transactions begin and end where this module says.
    where = ":memory:" if place is None else f"{place.as_uri()}?mode={mode}"
    return sqlite3.connect(where, uri=place is not None, timeout=_BUSY_SECONDS, isolation_level=None)


def _use_journal(db: sqlite3.Connection, journal: Literal["WAL", "DELETE"]) -> None:
    """A write-ahead log, so that readers and a writer do not wait for each other, or a rollback journal."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute(f"PRAGMA journal_mode = {journal}").fetchone()
            return
        except sqlite3.OperationalError as error:
            # This one statement does not wait by itself while another process is opening the same new file.
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _is_empty(db: sqlite3.Connection) -> bool:
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return tables == 0 and _pragma(db, "application_id") == 0 and _pragma(db, "user_version") == 0


def _check_whole(db: sqlite3.Connection) -> None:
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise damage(verdict)


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
