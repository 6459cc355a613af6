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
    # What a search found stands beside it, on the prompt that it did not see.
    assert "confirmed on 1 prompt × 3 samples" in " ".join(out.split()) and "sentences about weddings: layer" in text
    assert len(list(tmp_path.iterdir())) == 1


def test_the_mean_difference_is_added_everywhere(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    page = tmp_path / "out.html"
    quick = ("--n", "2", "--tokens", "4", "--out", str(page), "--no-search")
    arguments = ("--method", "mean-difference", "--words", "dogs", *quick)
    assert typed("demo", *arguments) == 0
    out = capsys.readouterr().out
    assert "surprise" in out and "verdict" in out
    # Vectors of several layers that are called the same are named once.
    assert "mean difference (5 − 5 prompts): dogs, 2 completions each" in " ".join(out.split())
    assert "dogs" in page.read_text(encoding="utf-8")


def test_an_unknown_topic_or_method_is_one_line(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    page = str(tmp_path / "out.html")
    assert typed("demo", "--method", "mean-difference", "--words", "cats", "--out", page) == 2
    assert "use one of weddings, war" in capsys.readouterr().err
    assert typed("demo", "--search", "--words", "cats", "--out", page) == 2
    assert "or --no-search" in capsys.readouterr().err
    assert typed("demo", "--method", "magic", "--out", page) == 2
    assert "--method 'magic' is unknown" in capsys.readouterr().err
