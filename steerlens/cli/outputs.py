"""Files that a command was asked for: places are checked before the work, files written before anything is printed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from steerlens.errors import SteerlensError
from steerlens.whole_files import check_place

written: list[Path] = []
"""Files that this command has written so far, for the last word after an interruption."""


def check_places(**places: Path | None) -> None:
    """Refuse places that cannot be written, or that two files would share; names are those of the options.

    Raises:
        SteerlensError: one line, before any work.
    """
    taken: dict[str, str] = {}
    for name, place in places.items():
        if place is None:
            continue
        if name != "store":  # a database is no file to be replaced, and checks its own place
            check_place(place, {"out": "the report", "csv": "the completions"}.get(name, "the file"))
        real = os.path.realpath(os.path.expanduser(place))
        # (/dev/null may take everything)
        if real in taken and (os.path.isfile(real) or not os.path.exists(real)):
            raise SteerlensError(f"--{taken[real]} and --{name} are both {place}; give each its own file")
        taken[real] = name


def write_all(writers: dict[str, Callable[[], Path]]) -> tuple[list[str], list[str]]:
    """Write every file; one line for each that is there, one for each that could not be written.

    Args:
        writers: what to call the file, and what writes it.
    """
    lines, problems = [], []
    for name, write in writers.items():
        try:
            path = write()
        except (SteerlensError, OSError) as error:
            problems.append(str(error))
        else:
            written.append(path)
            lines.append(f"{name}: {path}")
    return lines, problems
