"""`steerlens search`: a short search of the embedded model, its files, and what it says of bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from steerlens.cli.search import PROMPTS

QUICK = ["--n", "2", "--tokens", "4", "--confirm", "2", "--layers", "4-5", "--budget", "1500", "--no-training"]


def test_a_search_writes_its_files_and_says_what_it_found(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    page, table, store = tmp_path / "x.html", tmp_path / "x.csv", tmp_path / "x.sqlite"
    files = ["--out", str(page), "--csv", str(table), "--store", str(store)]
    assert typed("search", " weddings", *QUICK, *files) == 0
    out = capsys.readouterr().out
    assert "best: " in out and "on topic and fluent" in out and "confirmed on 2 prompts" in out
    assert page.stat().st_size > 1_000_000 and store.exists()
    rows = table.read_text(encoding="utf-8").splitlines()
    assert len(rows) > 1 and not any(prompt in row for row in rows for prompt in PROMPTS[-2:])
    assert typed("search", " weddings", *QUICK, "--store", str(store)) == 0
    again = capsys.readouterr().out.split("Search(")[1]
    assert again.rpartition(" in ")[0] == out.split("Search(")[1].partition("completions: ")[0].rpartition(" in ")[0]


def test_bad_input_is_one_line(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    for options, says in [
        (["--budget", "0"], "budget must be a whole number of at least 1"),
        (["--strategy", "luck"], "is unknown"),
        (["--budget", "50"], "does not pay for one setting"),
    ]:
        assert typed("search", " weddings", *QUICK[:-3], "--no-training", *options) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
