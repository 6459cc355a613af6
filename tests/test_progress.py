"""Progress: lines at intervals where there is no terminal, and nobody has to read them."""

from __future__ import annotations

import io
import sys

import pytest

from steerlens import progress
from steerlens.progress import progress_bar


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def run(monkeypatch: pytest.MonkeyPatch, stream: object, seconds: float = 0.0, **options: object) -> None:
    monkeypatch.setattr(progress, "SECONDS", seconds)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(4, unit="token", what="sampling", **options) as bar:  # type: ignore[arg-type]
        for _ in range(4):
            bar.update(1)


def test_lines_without_a_terminal(monkeypatch) -> None:
    out = io.StringIO()
    run(monkeypatch, out)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 3 and "\r" not in out.getvalue()
    assert all(line.startswith("sampling: ") for line in lines)
    assert any("50 %, 2 token" in line for line in lines)


def test_a_short_job_says_nothing(monkeypatch) -> None:
    out = io.StringIO()
    run(monkeypatch, out, seconds=1000.0)
    assert out.getvalue() == ""


def test_false_says_nothing_and_true_draws_a_bar_anywhere(monkeypatch) -> None:
    out = io.StringIO()
    run(monkeypatch, out, progress=False)
    assert out.getvalue() == ""
    run(monkeypatch, out, progress=True)
    assert "100%" in out.getvalue() and "\r" in out.getvalue()


@pytest.mark.parametrize("stream", [Closed(), None])
def test_nobody_has_to_read_them(monkeypatch, stream: object) -> None:
    run(monkeypatch, stream)
