"""The command line as a whole: versions, help, one line for whatever cannot be done, and what an interruption says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from steerlens.cli import outputs
from steerlens.cli.options import ModelOptions

QUICK = ["--n", "2", "--tokens", "4"]
LONG = "x" * 300 + ".html"


def test_the_installed_command_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steerlens.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("steerlens ")


@pytest.mark.parametrize(
    ("command", "words"),
    [("steer", "half way"), ("sweep", "the positive prompt"), ("demo", "1 and 4, or 2"), ("reproduce", "all")],
)
def test_help_tells_the_defaults_that_are_found_later(typed, monkeypatch, capsys, command: str, words: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert typed(command, "--help") == 0
    assert f"[default: ({words})]" in capsys.readouterr().out


def test_commands_share_their_options(typed, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("steer", "sweep", "demo"):
        assert typed(command, "--help") == 0
        told = capsys.readouterr().out
        for option in ("--top-k", "--top-p", "--frequency-penalty", "--seed", "--dtype", "--device"):
            assert option in told, command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["steer", "Love", "Hate", "--layer", "99"], "layer 99 is out of range"),
        (["steer", "Love", "Hate", "--prompt", ""], "prompt is empty"),
        (["steer", "", ""], "both prompts of the pair are empty"),
        (["steer", "Love", "Hate", "--n", "0"], "n is "),
        (["steer", "Love", "Hate", "--temperature", "-1"], "temperature"),
        (["steer", "Love", "Hate", "--top-k", "0"], "top_k"),
        (["steer", "Love", "Hate", "--model", "gtp2-xl"], "did you mean"),
        (["steer", "Love", "Hate", "--device", "abacus"], "abacus"),
        (["steer", "Love", "Hate", "--placement", "middle"], "placement 'middle'"),
        (["steer", "Love", "Hate", "--coeff", "nan"], "finite"),
        (["sweep", "--layers", "a-b"], "cannot be read"),
        (["sweep", "--layers", "²"], "cannot be read"),
        (["sweep", "--layers", "0-99999999999"], "layer 99999999999 is out of range"),
        (["sweep", "--layers", "0-" + "9" * 5000], "cannot be read"),
        (["sweep", "--layers", "5-2"], "holds no layer"),
        (["sweep", "--words", ","], "names no word"),
        (["demo", "--out", "/no/such/folder/out.html"], "cannot write"),
        (["sweep", "--csv", "/no/such/folder/out.csv"], "cannot write"),
        (["sweep", "--out", LONG], "too long"),
        (["sweep", "--csv", "~nobody-of-that-name/x"], "home of a user"),
        (["sweep", "--out", "a\0b"], "null byte"),
        (["sweep", "--out", "both", "--csv", "both"], "--out and --csv are both"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(typed, capsys, monkeypatch, tmp_path, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(*arguments) == 2
    told = capsys.readouterr()
    # On a busy machine a command says how long it has been running; that is no part of the message.
    lines = [line for line in told.err.splitlines() if not (line.startswith("loading ") or line.endswith(" so far"))]
    assert len(lines) == 1 and words in lines[0] and lines[0].startswith("steerlens: ")
    assert len(lines[0]) < 2000 and "\0" not in lines[0]
    assert told.out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "--layes", "3"], "no such option: --layes"),
        (["sweep", "--n", "[red]many"], "invalid value for '--n'"),
        (["sweeep"], "no such command 'sweeep'"),
        (["steer"], "missing argument 'positive'"),
        (["steer", "a", "b", "c[/INST]"], "c[/INST]"),
    ],
)
def test_a_line_that_cannot_be_read_is_one_line_and_exit_code_2(typed, capsys, arguments, words) -> None:
    assert typed(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("steerlens: ") and words in told.err and "--help" in told.err


def test_what_nobody_foresaw_is_one_line_unless_the_traceback_is_asked_for(typed, monkeypatch, capsys) -> None:
    def broken(self: ModelOptions) -> None:
        raise RuntimeError("CUDA error:\nout of memory")

    monkeypatch.setattr(ModelOptions, "load", broken)
    assert typed("steer", "Love") == 1
    assert "steerlens: RuntimeError: CUDA error: out of memory (unexpected" in capsys.readouterr().err
    monkeypatch.setenv("STEERLENS_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="CUDA"):
        typed("steer", "Love")


def test_an_interruption_before_the_command_begins_is_one_line_too(typed, monkeypatch, capsys) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr("steerlens.cli.waiting.time.sleep", stopped)
    monkeypatch.setattr("steerlens.cli.waiting._ticks", lambda: (0, 0))
    assert typed("steer", "Love") == 130
    assert capsys.readouterr().err == "steerlens: interrupted; nothing was written\n"


def test_an_interruption_says_what_is_kept(typed: Callable[..., int], monkeypatch, tmp_path: Path, capsys) -> None:
    from steerlens.experiments import suite

    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "EXPERIMENTS", {"overhead": suite.Experiment(stopped, {}, seeded=False)})
    assert typed("reproduce", "overhead", "--out", str(tmp_path)) == 130
    assert "steerlens: interrupted; what is finished is kept; the same command resumes" in capsys.readouterr().err
    monkeypatch.setattr("steerlens.figures.completions_side_by_side", stopped)
    assert typed("steer", "Love", "Hate", *QUICK) == 130
    assert "steerlens: interrupted; nothing was written" in capsys.readouterr().err
    monkeypatch.setattr("steerlens.runs.sweep_page.best_beside_unsteered", stopped)
    table = tmp_path / "rows.csv"
    assert typed("sweep", "--layers", "1", "--no-control", "--csv", str(table), *QUICK) == 130
    assert f"steerlens: interrupted; written: {table}" in capsys.readouterr().err
    assert outputs.written == [table]
