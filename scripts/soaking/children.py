"""Work in forked processes, which have the model and everything imported already, and may be killed."""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

# How a child ended, if by itself: one line of SteerlensError, anything else raised, an interruption outside the work.
FINE, TOLD, RAISED, OUTSIDE = 0, 3, 4, 99


def child(work: Callable[[], None], errors: Path, *, out: int | None = None) -> int:
    """The id of a process that does `work` and has begun it; what it says of errors is written to the file `errors`.

    Args:
        out: a file descriptor for its stdout; by default nothing is kept of it.
    """
    begun, begins = os.pipe()
    number = os.fork()
    if number == 0:
        status = RAISED
        try:
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY) if out is None else out, 1)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            tqdm.set_lock(threading.RLock())  # its own: a process that dies with the shared one would stop everybody
            os.write(begins, b".")
            status = _status(work)
        except KeyboardInterrupt:
            status = OUTSIDE
        finally:
            os._exit(status)
    os.close(begins)
    select.select([begun], [], [], 60)
    os.close(begun)
    return number


def _status(work: Callable[[], None]) -> int:
    from steerlens import SteerlensError

    try:
        work()
        return FINE
    except SystemExit as end:
        return int(end.code or 0)
    except SteerlensError as error:
        os.write(2, str(error).encode())
        return TOLD
    except KeyboardInterrupt as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any("/steerlens/" in one.filename for one in frames):
            return OUTSIDE  # before the work began, or after its end
        os.write(2, traceback.format_exc().encode())
        return RAISED
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        return RAISED


def ended(number: int) -> int:
    """The exit status of a child, waited for; minus the signal if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def done(work: Callable[[], None], errors: Path, *, out: int | None = None) -> int:
    """The exit status of a child that does `work`."""
    return ended(child(work, errors, out=out))


def raw(errors: Path) -> str:
    """What a command wrote to stderr, if that is no line for users; else nothing."""
    said = errors.read_text(errors="replace")
    marks = ("Traceback", "unexpected", "Exception ignored", "BrokenPipe")
    return said if any(mark in said for mark in marks) else ""
