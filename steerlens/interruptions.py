"""`interruptible`: long work that is no longer wanted ends at the next place where it can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """The work was no longer wanted. No error: who made it interruptible goes on with something else."""


class _Asking(threading.local):
    """Of each thread: whether what it does is still wanted, as far as somebody has asked to know."""

    unwanted: Callable[[], bool] | None = None


_ASKING = _Asking()


@contextmanager
def interruptible(unwanted: Callable[[], bool]) -> Iterator[None]:
    """In the block, this thread's work raises `Interrupted` soon after `unwanted` says True.

    `unwanted` is called between batches, and between the blocks of a model where they are walked, from this thread.
    """
    before, _ASKING.unwanted = _ASKING.unwanted, unwanted
    try:
        yield
    finally:
        _ASKING.unwanted = before


def breathe() -> None:
    """Nothing is returned: long work calls this now and then.

    Raises:
        Interrupted: in a block of `interruptible` whose work is no longer wanted.
    """
    if _ASKING.unwanted is not None and _ASKING.unwanted():
        raise Interrupted
