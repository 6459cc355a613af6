"""A page is drawn only for a place that can hold it, and lone surrogates do not cost it."""

from pathlib import Path

import pytest

from steerlens.errors import SteerlensError
from steerlens.reports.page import Page
from steerlens.reports.writing import check_page_path, write_page


def test_the_page_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_page(str(path), lambda: Page(title="new")) == path
    assert "<title>new</title>" in path.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_one_line_before_anything_is_drawn(tmp_path: Path) -> None:
    def never() -> Page:
        raise AssertionError("drawn")

    for path in (tmp_path / "no" / "r.html", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(SteerlensError, match="cannot write the report to"):
            check_page_path(path)
        with pytest.raises(SteerlensError, match="cannot write the report to"):
            write_page(path, never)
    assert list(tmp_path.iterdir()) == []


def test_broken_bytes_in_a_completion_do_not_cost_the_report(tmp_path: Path) -> None:
    path = write_page(tmp_path / "r.html", Page(title="lone \ud800 surrogate"))
    assert "lone ? surrogate" in path.read_text(encoding="utf-8")
