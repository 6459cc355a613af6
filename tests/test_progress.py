"""Progress: lines at intervals where there is no terminal, and nobody has to read them."""

from __future__ import annotations

import io
import subprocess
import sys
import time

import pytest

from steerlens import progress
from steerlens.progress import Lines, at_work, progress_bar


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths, and no bar was open before."""
    monkeypatch.setattr(progress, "FIRST", 0.02)
    monkeypatch.setattr(progress, "EVERY", 0.04)
    monkeypatch.setattr(Lines, "_closed", -1e9)


def waited(stream: io.StringIO, lines: int) -> list[str]:
    """The lines written, once there are so many (a test that never gets them fails by its own assertion)."""
    deadline = time.monotonic() + 20
    while stream.getvalue().count("\n") < lines and time.monotonic() < deadline:
        time.sleep(0.005)
    return stream.getvalue().splitlines()


def test_lines_come_by_the_clock_and_not_by_the_step(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with progress_bar(4, unit="condition", what="sampling") as bar:
        first = waited(out, 2)
        bar.update(2)
        bar.set_postfix(loss="0.5")
        later = waited(out, len(out.getvalue().splitlines()) + 2)
    assert len(first) >= 2 and all(one.startswith("sampling: 0 of 4 conditions (0%), 0:0") for one in first)
    assert "2 of 4 conditions (50%), 0:0" in later[-1] and later[-1].endswith(" left, loss 0.5")


@pytest.mark.parametrize(
    ("total", "done", "seconds", "line"),
    [
        (4, 1, 30, "x: 1 of 4 runs (25%), 0:30 so far, about 1:30 left"),
        (1, 0, 4000, "x: 0 of 1 run (0%), 1:06:40 so far"),
        (None, 1200, 61, "x: 1,200 runs, 1:01 so far"),
        (4, 9, 10, "x: 9 of 4 runs (225%), 0:10 so far"),
    ],
)
def test_what_a_line_says(total: int | None, done: int, seconds: float, line: str) -> None:
    bar = Lines(total, "run", "x")
    bar.update(done)
    assert bar.line(seconds) == line


def test_the_innermost_speaks_and_the_outer_one_where_there_is_none(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with at_work("reproduce"):
        with progress_bar(3, unit="seed", what="overhead"):
            inner = waited(out, 2)
        outer = waited(out, len(out.getvalue().splitlines()) + 2)
    assert {one.split(":")[0] for one in inner} == {"overhead"}
    assert outer[-1].startswith("reproduce: 0:0")


def test_many_short_jobs_are_not_silent_together(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress, "FIRST", 0.3)
    deadline = time.monotonic() + 20
    while not out.getvalue() and time.monotonic() < deadline:
        with progress_bar(1, unit="text", what="reading"):
            time.sleep(0.1)  # each is over before its own first line
    assert out.getvalue().startswith("reading: ")


def test_a_short_job_says_nothing(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress, "FIRST", 1000.0)
    with progress_bar(4, unit="token", what="sampling") as bar:
        bar.update(4)
    assert out.getvalue() == ""


def test_lines_hold_no_control_characters(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with progress_bar(1, unit="run", what="\x1b[31mred\r\nline"):
        lines = waited(out, 1)
    assert lines[0].startswith("�[31mred��line: ") and "\r" not in out.getvalue()


def test_false_says_nothing_and_true_draws_a_bar_anywhere(monkeypatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    for wanted, drawn in ((False, False), (True, True)):
        with progress_bar(4, unit="token", what="sampling", progress=wanted) as bar:
            bar.update(4)
        assert ("100%" in out.getvalue() and "\r" in out.getvalue()) is drawn


@pytest.mark.parametrize("stream", [Closed(), None])
def test_nobody_has_to_read_them(monkeypatch, stream: object) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(2, unit="token", what="sampling") as bar:
        time.sleep(0.1)
        bar.update(2)


def test_a_job_that_fails_ends_its_lines(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(KeyboardInterrupt), at_work("x"), progress_bar(2, unit="token", what="sampling"):
        raise KeyboardInterrupt
    assert Lines._open == []


def test_in_a_pipe_a_command_is_heard_within_its_first_step() -> None:
    code = (
        "import time\nfrom steerlens import progress\nprogress.FIRST = progress.EVERY = 0.1\n"
        "with progress.progress_bar(1, unit='step', what='long'): time.sleep(1)\n"
    )
    heard = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert heard.returncode == 0 and heard.stderr.startswith("long: 0 of 1 step (0%), 0:00 so far\n")
