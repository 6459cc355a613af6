"""Nothing that was committed is lost, whoever dies, and no process stands in another's way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from steerlens.runs import sqlite_file, sqlite_place
from tests.processes import dying_before, ended, in_child
from tests.runs.sqlite_file.cats import LITTER, add, journal, litters, opened, told


def test_a_process_killed_before_any_statement_leaves_whole_transactions(path: Path, monkeypatch) -> None:
    connect = sqlite_file._connect

    def work() -> None:
        file = opened(path)
        for litter in range(3):
            add(file, litter)
        file.close()

    before: set[int] = set()
    for k in range(1, 60):
        monkeypatch.setattr(sqlite_file, "_connect", dying_before(k, connect))
        status = in_child(work)
        monkeypatch.setattr(sqlite_file, "_connect", connect)
        now = litters(path) if path.exists() else set()
        assert now >= before
        before = now
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert k > 20, "so many statements a process has"
    assert before == {0, 1, 2}
    assert journal(path) == ("wal" if sqlite_place.on_this_machine(path) else "delete")


def test_a_transaction_half_on_the_disk_is_undone(path: Path) -> None:
    """Killed with pages of an unfinished transaction in the file: its journal stays, and whoever opens it undoes."""

    def dies() -> None:
        file = opened(path)
        add(file, 0)
        with file.transaction() as db:
            db.execute("PRAGMA cache_size = 1")  # pages go to the disk before the commit
            for litter in range(1, 300):
                db.executemany("INSERT INTO cat VALUES (?, ?)", [(litter, name) for name in range(LITTER)])
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(dies) == -signal.SIGKILL
    if not sqlite_place.on_this_machine(path):
        assert path.with_name("cats-journal").stat().st_size > 0
        told("was left by a process that was killed", lambda: opened(path, writable=False))
    file = opened(path)
    add(file, 1)
    file.close()
    assert litters(path) == {0, 1}
    file = opened(path, writable=False)
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM cat").fetchone() == (2 * LITTER,)
    file.close()


def test_many_processes_make_and_fill_one_file(path: Path) -> None:
    def work(litter: int) -> None:
        file = opened(path)
        for one in range(3):
            add(file, 3 * litter + one)
        file.close()

    for number in range(3):
        path = path.with_name(f"cats{number}")
        children = [in_child(lambda n=n, path=path: work(n), wait=False) for n in range(6)]  # type: ignore[misc]
        assert [ended(child) for child in children] == [0] * 6
        assert litters(path) == set(range(18))


OTHER = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(*db.execute('SELECT DISTINCT litter FROM cat')); "
)


def another_process(path: Path) -> int:
    """How many litters a process sees that opens the file, reads, and closes it."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER + "db.close()", path], capture_output=True, text=True, check=True
    )
    return len(done.stdout.split())


def test_opening_a_file_twice_keeps_the_locks_of_the_first(path: Path) -> None:
    """POSIX ends all locks that a process has on a file when it closes any descriptor of it, SQLite's or not.

    Without its lock the first would look as if it were gone: whoever closes the file last removes the log, and what the
    first writes then goes into a log that nobody else sees, and that dies with it.
    """
    first = opened(path)
    add(first, 0)
    second = opened(path)
    assert another_process(path) == 1
    add(first, 1)
    assert another_process(path) == 2
    add(second, 2)
    first.close()
    assert another_process(path) == 3
    second.close()
    assert litters(path) == {0, 1, 2}


def test_a_reader_does_not_keep_others_from_opening(path: Path) -> None:
    """Changing the kind of journal does not always wait by itself."""
    opened(path).close()
    with closing(sqlite3.connect(path)) as db:
        other = "wal" if journal(path) == "delete" else "delete"
        assert db.execute(f"PRAGMA journal_mode = {other}").fetchone() == (other,)
    reader = "db.execute('BEGIN'); db.execute('SELECT * FROM cat').fetchall(); print(flush=True); time.sleep(0.5)"
    with subprocess.Popen(
        [sys.executable, "-c", OTHER + "import time; " + reader, path], stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        one.stdout.readline()
        opened(path).close()
    assert journal(path) != other


def test_who_waits_for_a_stuck_process_is_told(path: Path, monkeypatch) -> None:
    opened(path).close()
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        told("kept the book .* locked for 0 s; stop it", lambda: opened(path))
