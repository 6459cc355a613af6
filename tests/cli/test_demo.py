"""`steerlens demo`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_a_table_is_printed_and_a_page_written(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    page = tmp_path / "out.html"
    assert typed("demo", "--n", "3", "--tokens", "4", "--coeff", "2", "--out", str(page)) == 0
    out = capsys.readouterr().out
    assert "unsteered" in out and "no effect found" in out and "highest: layer" in out and "random vector" in out
    assert "I went up to my friend and said" in out
    text = page.read_text(encoding="utf-8")
    assert "plotly" in text and "steerlens demo --n 3" in text
    assert len(list(tmp_path.iterdir())) == 1
