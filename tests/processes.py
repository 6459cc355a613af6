"""Work done in another process: one that may be killed, or that has no rights."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm


def in_child(work: Callable[[], None], *, wait: bool = True) -> int:
    """The process in which `work` runs (a fork, which has everything imported), or its exit status after the end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            # tqdm's lock is a semaphore that forks share: one who dies with it would stop everybody.
            tqdm.set_lock(threading.RLock())
            work()
            status = 0
        finally:
            os._exit(status)  # nothing of pytest's
    return ended(child) if wait else child


def ended(child: int) -> int:
    """The exit status of a child, waited for; minus the signal if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unprivileged(work: Callable[[], None]) -> int:
    """The exit status of `work` in a process to which file permissions apply (root's ignores them)."""

    def without_rights() -> None:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        work()

    return in_child(without_rights)


def dying_before(
    k: int, connect: Callable[[Path, str], sqlite3.Connection]
) -> Callable[[Path, str], sqlite3.Connection]:
    """As `connect`, but the process is killed before the k-th statement that SQLite is given."""
    left = [k]

    def count(statement: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect_and_count(path: Path, mode: str) -> sqlite3.Connection:
        db = connect(path, mode)
        db.set_trace_callback(count)
        return db

    return connect_and_count


def let_in(folder: Path) -> None:
    """Let unprivileged processes enter a folder; pytest's are for the owner alone."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
