"""Writing a page: the path is checked first, and the file is written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from steerlens.reports.drawing_library import Library, write_library
from steerlens.reports.html import page_html
from steerlens.reports.page import Page
from steerlens.whole_files import check_place, write_whole


def write_page(path: object, page: Page | Callable[[], Page], *, library: Library = "inside") -> Path:
    """The path of one HTML file that shows `page` (or what it gives when called).

    Args:
        library: "inside" makes it self-contained; "beside" writes plotly.js once into its folder, for all its pages.

    Raises:
        SteerlensError: the place cannot be written, in one line, before anything is drawn; a full disk.
    """
    target = check_page_path(path)
    made = page if isinstance(page, Page) else page()
    if made.figures and library == "beside":
        write_library(target.parent)
    return write_whole(target, page_html(made, library=library), "the report")


def check_page_path(path: object) -> Path:
    """`path` as a Path, if a page can be written there; nothing is left on disk. Call it before long work.

    Raises:
        SteerlensError: it cannot: a folder that is missing or closed, a folder in place of a file, an impossible name.
    """
    return check_place(path, "the report")
