"""`steerlens compare`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_methods_stand_side_by_side(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    page = tmp_path / "x.html"
    few = ["--methods", "mean_difference", "--layers", "3", "--budget", "400", "--confirm", "2", "--n", "1"]
    prompts = ["-p", "I went up to my friend and said", "-p", "Last night I"]
    assert typed("compare", "war", *few, *prompts, "--tokens", "6", "--out", str(page)) == 0
    out = capsys.readouterr().out
    assert "mean_difference, equal damage" in out and "prompting: Talk about war." in out
    assert page.stat().st_size > 1_000_000


def test_bad_input_is_one_line(typed: Callable[..., int], capsys) -> None:
    assert typed("compare", "cats") == 2
    assert "use one of weddings" in capsys.readouterr().err
