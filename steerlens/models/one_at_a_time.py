"""One thread at a time works with a model: hooks that one thread puts on it would change what another computes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def one_at_a_time(model: Any) -> Iterator[None]:
    """The model belongs to this thread until the block ends; other threads that come here wait. Blocks may be nested.

    This covers only what this package does. Another thread that calls the model directly in the meantime runs with its
    hooks: that cannot be prevented from here.
    """
    with _lock_of(model).held():
        yield


def for_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose first argument is a model, for one thread at a time."""

    @functools.wraps(function)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            lock = _lock_of(args[0] if args else kwargs.get("model"))
        except TypeError:  # None, a name: nothing that could be a model, as the function itself will say
            return function(*args, **kwargs)
        with lock.held():
            return function(*args, **kwargs)

    return waiting


class _Lock:
    """Re-entrant, and without the rule that the thread that took it must give it back: a `with sl.steer(...)` may be
    left by another (a generator, a notebook's widget).
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        me = threading.get_ident()
        before = self._depth if self._owner == me else 0
        try:
            with self._changed:
                while self._owner not in (None, me):
                    self._changed.wait()
                self._owner, self._depth = me, before + 1
            yield
        finally:  # back to where it was, whichever line a Ctrl-C has come at
            with self._changed:
                if self._owner == me:
                    self._depth = before
                    if before == 0:
                        self._owner = None
                        self._changed.notify_all()


_LOCKS: WeakKeyDictionary[Any, _Lock] = WeakKeyDictionary()
_LOCKS_CHANGE = threading.Lock()


def _lock_of(model: Any) -> _Lock:
    with _LOCKS_CHANGE:
        return _LOCKS.setdefault(model, _Lock())
