"""The command line: what it prints and writes, and that bad input is one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import steerlens.cli as cli

QUICK = ["--n", "2", "--tokens", "4"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `steerlens …`, in this process."""
    monkeypatch.setattr(sys, "argv", ["steerlens", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_demo_prints_a_table_and_writes_a_page(monkeypatch, tmp_path: Path, capsys) -> None:
    page = tmp_path / "out.html"
    code = run(monkeypatch, "demo", "--n", "3", "--tokens", "4", "--coeff", "2", "--out", str(page))
    out = capsys.readouterr().out
    assert code == 0
    assert "unsteered" in out and "best: layer" in out and "random vector" in out
    assert "I went up to my friend and said" in out
    text = page.read_text(encoding="utf-8")
    assert "plotly" in text and "steerlens demo --n 3" in text
    assert len(list(tmp_path.iterdir())) == 1


def test_steer_shows_both_sides(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "steer", "Love", "Hate", "-p", "I hate you because", "--layer", "3", *QUICK) == 0
    out = capsys.readouterr().out
    assert "unsteered" in out and "Love − Hate" in out


def test_an_interruption_says_what_is_kept(monkeypatch, tmp_path: Path, capsys) -> None:
    from steerlens.experiments import suite

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "EXPERIMENTS", {"overhead": suite.Experiment(stopped, {}, seeded=False)})
    assert run(monkeypatch, "reproduce", "overhead", "--out", str(tmp_path)) == 130
    assert "steerlens: interrupted; what is finished is kept; the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr("steerlens.figures.completions_side_by_side", stopped)
    assert run(monkeypatch, "steer", "Love", "Hate", *QUICK) == 130
    assert "steerlens: interrupted; nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [("steer", "half way"), ("sweep", "the positive prompt"), ("demo", "1 and 4"), ("reproduce", "all")],
)
def test_help_tells_the_defaults_that_are_found_later(monkeypatch, capsys, command: str, words: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, command, "--help") == 0
    assert f"[default: ({words})]" in capsys.readouterr().out


def test_reproduce_writes_a_page_of_results(monkeypatch, tmp_path: Path, capsys) -> None:
    from steerlens.experiments import suite

    tiny = {"batch": 2, "tokens": 8, "forwards": 2, "seeds": 2}
    changed = {"overhead": suite.Experiment(suite.overhead, tiny, seeded=False)}
    monkeypatch.setattr(suite, "EXPERIMENTS", {**suite.EXPERIMENTS, **changed})
    assert run(monkeypatch, "reproduce", "overhead", "--quick", "--out", str(tmp_path / "out")) == 0
    assert "index.html" in capsys.readouterr().out
    assert "steerlens reproduce overhead --quick" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_reproduce_says_what_it_cannot_do(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "reproduce", "knowledge", "--data", "conceptnet.parquet") == 2
    assert "cannot be read; give NAME=PATH" in capsys.readouterr().err
    assert run(monkeypatch, "reproduce", "knowledge", "--data", "knowledge=missing.parquet") == 2
    assert "not done: knowledge (" in capsys.readouterr().err


def test_sweep_writes_completions(monkeypatch, tmp_path: Path, capsys) -> None:
    table = tmp_path / "rows.csv"
    arguments = [
        "sweep",
        " war",
        " ",
        "--words",
        "war",
        "--layers",
        "2,4-5",
        "--no-control",
        "--csv",
        str(table),
        *QUICK,
    ]
    assert run(monkeypatch, *arguments) == 0
    assert len(table.read_text(encoding="utf-8").splitlines()) >= 1 + 4 * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["steer", "Love", "Hate", "--layer", "99"], "layer 99 is out of range"),
        (["steer", "Love", "Hate", "--prompt", ""], "prompt is empty"),
        (["steer", "", ""], "both prompts of the pair are empty"),
        (["steer", "Love", "Hate", "--n", "0"], "n is "),
        (["steer", "Love", "Hate", "--temperature", "-1"], "temperature"),
        (["steer", "Love", "Hate", "--model", "gtp2-xl"], "did you mean"),
        (["steer", "Love", "Hate", "--device", "abacus"], "abacus"),
        (["steer", "Love", "Hate", "--placement", "middle"], "placement 'middle'"),
        (["steer", "Love", "Hate", "--coeff", "nan"], "finite"),
        (["sweep", "--layers", "a-b"], "cannot be read"),
        (["sweep", "--words", ","], "names no word"),
        (["demo", "--out", "/no/such/folder/out.html"], "cannot write"),
        (["sweep", "--csv", "/no/such/folder/out.csv"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, words) -> None:
    assert run(monkeypatch, *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1 and words in lines[0] and lines[0].startswith("steerlens: ")


def test_the_installed_command_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steerlens.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("steerlens ")
