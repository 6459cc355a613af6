"""Printing: on poor consoles, into closed pipes, and with text of users as it is.

Nothing printed here is read as markup, and no failure to print costs a command its outcome: what was asked for as files
is written before anything is said.
"""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from steerlens.errors import SteerlensError, visible

# What consoles of one byte per character lack, in the characters that they have.
_PLAIN = {
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "×": "x",
    "→": "->",
}
_LINES = {"─": "-", "━": "-", "═": "-", "│": "|", "┃": "|", "║": "|"}


def prepare() -> None:
    """Make stdout and stderr take any text: what their encoding lacks is written in its nearest plain characters."""
    codecs.register_error("steerlens.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="steerlens.plain")


def say(text: str) -> None:
    """Print `text` to stdout, whole lines; a pipe that nobody reads any more is no error.

    Raises:
        SteerlensError: it cannot be written for another reason (a full disk).
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _shut(sys.stdout)
    except OSError as error:
        _shut(sys.stdout)
        raise SteerlensError(f"cannot print: {(error.strerror or str(error)).lower()}") from None


def note(text: str) -> None:
    """Print `text` to stderr; where that is not possible, nobody can be told."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _shut(sys.stderr)


def finish() -> None:
    """Write out what stdout and stderr still hold; the interpreter would complain of a closed pipe at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _shut(stream)


def width() -> int:
    """Columns to print in."""
    return max(min(shutil.get_terminal_size((110, 40)).columns, 140), 60)


def coloured() -> bool:
    """Whether stdout is a terminal that wants colours."""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    ruled: Sequence[int] = (),
    bold: int | None = None,
) -> str:
    """A table as text, columns to the right; every cell is shown as it is.

    Args:
        ruled: numbers of the rows with a line below them.
        bold: number of the row that stands out.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(visible(title)), title_justify="left")
    for name in columns:
        drawn.add_column(Text(visible(name)), justify="right")
    for number, row in enumerate(rows):
        cells = [Text(visible(cell)) for cell in row]
        drawn.add_row(*cells, end_section=number in ruled, style="bold" if number == bold else "")
    out = io.StringIO()
    Console(file=out, width=width(), force_terminal=coloured(), legacy_windows=False).print(drawn)
    return out.getvalue().rstrip("\n")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_as_plain(character, error.encoding) for character in error.object[error.start : error.end])
    return text, error.end


def _as_plain(character: str, encoding: str) -> str:
    box = "─" <= character <= "╿"
    nearest = _PLAIN.get(character) or _LINES.get(character) or ("+" if box else "?")
    try:
        nearest.encode(encoding)
    except UnicodeEncodeError:
        return "?"
    return nearest


def _shut(stream: TextIO | Any) -> None:
    """Send what is left of a stream nowhere, so that neither later prints nor the end of the interpreter fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass
