"""plotly.js, for pages that draw: compressed inside a page of its own, or one file beside all pages of a folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from plotly.offline import get_plotlyjs

from steerlens.reports.embedding import packed
from steerlens.whole_files import write_whole

FILE = "plotly.min.js"
Library = Literal["inside", "beside"]
"""Where a page finds plotly.js: inside it (2 MB, the page stands alone), or beside it (5 MB once for a folder)."""


def library_element(place: Library) -> str:
    """The script element that brings plotly.js to a page."""
    if place == "beside":
        return f'<script src="{FILE}"></script>'
    return f'<script type="text/plain" id="plotly-library">{_packed()}</script>'


def write_library(folder: Path) -> Path:
    """The path of the file that pages in `folder` share; written only if it is not there as it should be.

    Raises:
        SteerlensError: it cannot be written.
    """
    path, library = folder / FILE, get_plotlyjs().encode("utf-8")
    if path.is_file() and path.stat().st_size == len(library) and path.read_bytes() == library:
        return path
    return write_whole(path, library, "plotly.js")


@cache
def _packed() -> str:
    return packed(get_plotlyjs())
