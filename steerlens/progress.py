"""`progress_bar`: how far a long job has got: a bar on terminals and in notebooks, a line now and then elsewhere.

Where there is no terminal, lines come by the clock and not by the step: a job whose first step takes minutes says so.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any, ClassVar, TextIO

FIRST, EVERY = 10.0, 30.0
"""Seconds before the first line of a job, and between two lines, where there is no terminal."""


def progress_bar(
    total: int | None,
    *,
    unit: str,
    what: str,
    progress: bool | None = None,
    leave: bool = True,
    scale: bool = False,
) -> Any:
    """A bar of `total` units, to be used in a `with`: `update(n)`, `set_postfix(name=text)`, and `n` so far.

    Args:
        unit: in the singular.
        progress: False shows nothing. None shows a bar on terminals and in notebooks; in files and pipes, lines on
            stderr at intervals. True always shows the bar.
        leave: whether the bar stays when it is done.
        scale: write thousands as k.
    """
    if progress is None and not _takes_bars(sys.stderr):
        return Lines(total, unit, what)
    from tqdm.auto import tqdm

    shared: dict[str, Any] = {"total": total, "unit": unit, "desc": what, "unit_scale": scale}
    return tqdm(**shared, disable=progress is False, leave=leave)


def at_work(what: str) -> contextlib.AbstractContextManager[Any]:
    """Around the whole of a long job: where there is no terminal, lines as long as no bar within it gives any."""
    if _takes_bars(sys.stderr):
        return contextlib.nullcontext()
    Lines._closed = -1e9  # a new command: what came before it in this process is another story
    return Lines(None, "", what)


class Lines:
    """A bar as lines on stderr, each whole and of plain characters, written by a thread of its own.

    Of bars within bars only the innermost writes. Jobs that follow each other share one clock, so that many short ones
    are not silent together.
    """

    _open: ClassVar[list[Lines]] = []
    _last = _closed = -1e9  # of any bar: when something was written or work began after a pause; when the last closed
    _first = True  # nothing was written since then

    def __init__(self, total: int | None, unit: str, what: str) -> None:
        self.n, self.total, self._unit, self._what, self._more = 0, total, unit, what, ""
        self._done = threading.Event()
        self._began = 0.0

    def __enter__(self) -> Lines:
        self._began = now = time.monotonic()
        if not Lines._open and now - Lines._closed > FIRST:
            Lines._last, Lines._first = now, True
        Lines._open.append(self)
        threading.Thread(target=self._watch, name=f"progress: {self._what}", daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._done.set()
        Lines._open.remove(self)
        Lines._closed = time.monotonic()

    def update(self, n: int = 1) -> None:
        """`n` more units are done."""
        self.n += n

    def set_postfix(self, **facts: object) -> None:
        """What else to say."""
        self._more = "".join(f", {name} {value}" for name, value in facts.items())

    def _watch(self) -> None:
        while True:
            due = Lines._last + (FIRST if Lines._first else EVERY)
            if self._done.wait(max(due - time.monotonic(), min(FIRST, EVERY) / 10)):
                return
            now = time.monotonic()
            if now >= Lines._last + (FIRST if Lines._first else EVERY) and Lines._open[-1:] == [self]:
                Lines._last, Lines._first = now, False
                _write(sys.stderr, self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """How far it has got after so many seconds."""
        whole = f" of {self.total:,}" if self.total else ""
        units = f"{self._unit}{'' if (self.total or self.n) == 1 else 's'}"
        share = f" ({self.n / self.total:.0%})" if self.total else ""
        done = f"{self.n:,}{whole} {units}{share}, " if self._unit else ""
        left = ""
        if self.total and 0 < self.n <= self.total:
            left = f", about {_time(seconds / self.n * (self.total - self.n))} left"
        return f"{self._what}: {done}{_time(seconds)} so far{left}{self._more}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _takes_bars(stream: TextIO | Any) -> bool:
    return stream is not None and hasattr(stream, "isatty") and stream.isatty()


def _write(stream: TextIO | Any, line: str) -> None:
    """The line, without control characters; a closed pipe must not cost the work."""
    if stream is not None:
        plain = "".join(one if one.isprintable() else "�" for one in line)
        with contextlib.suppress(OSError, ValueError):
            stream.write(plain + "\n")
            stream.flush()
