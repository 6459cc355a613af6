"""`progress_bar`: how far a long job has got: a bar on terminals and in notebooks, an occasional line elsewhere."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO

SECONDS = 10.0
"""Between two lines, and before the first, where there is no terminal."""


def progress_bar(
    total: int | None,
    *,
    unit: str,
    what: str,
    progress: bool | None = None,
    leave: bool = True,
    scale: bool = False,
) -> Any:
    """A tqdm bar of `total` units, to be used in a `with`.

    Args:
        progress: False shows nothing. None shows a bar on terminals and in notebooks; in files and pipes, lines on
            stderr at intervals. True always shows the bar.
        leave: whether the bar stays when it is done.
        scale: write thousands as k.
    """
    from tqdm import tqdm
    from tqdm.auto import tqdm as any_tqdm

    shared: dict[str, Any] = {"total": total, "unit": unit, "desc": what, "unit_scale": scale}
    if progress is None and not _takes_bars(sys.stderr):
        whole = "{percentage:.0f} %, " if total else ""
        lines = whole + "{n_fmt} {unit} in {elapsed}" + (", about {remaining} left" if total else "")
        return tqdm(
            **shared,
            file=_Lines(sys.stderr),
            bar_format="{desc}: " + lines,
            delay=SECONDS,
            mininterval=SECONDS,
            miniters=1,  # look at the clock at each step: the second thread that tqdm has for this is not needed
            leave=False,
        )
    return any_tqdm(**shared, disable=progress is False, leave=leave)


def _takes_bars(stream: TextIO | Any) -> bool:
    return stream is not None and hasattr(stream, "isatty") and stream.isatty()


class _Lines:
    """A stream that writes each state of a bar as its own line; a closed reader does no harm."""

    def __init__(self, stream: TextIO | Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line and self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # a closed pipe must not cost the work
                self._stream.write(line + "\n")

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()
