"""`steerlens sweep`: files are written before anything is printed, and whatever happens to the printing, they stand."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from steerlens.errors import SteerlensError

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]
QUICK = ["--n", "2", "--tokens", "4"]
PROMPT = '-p "I went up to my friend and said"'
LINE = f"$STEERLENS sweep x y --words x --layers 2 --n 2 --tokens 4 --no-control {PROMPT}"


def test_completions_are_written(typed: Callable[..., int], tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    chosen = ["--words", "war", "--layers", "2,4-5", "--no-control"]
    assert typed("sweep", " war", " ", *chosen, "--csv", str(table), *QUICK) == 0
    assert len(table.read_text(encoding="utf-8").splitlines()) >= 1 + 4 * 2


def test_the_best_condition_is_confirmed_on_held_out_prompts(
    typed: Callable[..., int], tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "130")  # so that no heading is broken
    page = tmp_path / "x.html"
    chosen = ["--words", "war", "--layers", "2", "--controls", "standard", "--prompting", "There is a war."]
    again = ["--confirm", "3", "--held-out", "Last night I", "--held-out", "The man said"]
    assert typed("sweep", " war", " ", *chosen, *again, "--out", str(page), *QUICK) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "prompting" in out and "one pair has nothing to shuffle" in out
    assert "confirmed on 2 prompts × 3 samples, seed 1" in out and "steered leads by" in out
    assert "confirmed on 2 prompts" in page.read_text(encoding="utf-8")


def test_text_of_users_is_no_markup(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    page, table = tmp_path / "x.html", tmp_path / "x.csv"
    long = "I went up to my friend and said that we should all go home and sleep for a week or so."
    files = ["--out", str(page), "--csv", str(table)]
    assert typed("sweep", "[red]a [/INST]", "[b [/INST]", "--layers", "2", "-p", long, *files, *QUICK) == 0
    out = capsys.readouterr().out
    assert "'[red]a [/INST]' − '[b [/INST]'" in out
    assert page.stat().st_size > 1_000_000 and table.stat().st_size > 100


@pytest.mark.parametrize("error", [SteerlensError("cannot write the report to it: no space"), OSError(28, "No space")])
def test_one_file_that_fails_costs_neither_the_other_nor_the_table(
    typed: Callable[..., int], tmp_path: Path, capsys, monkeypatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("steerlens.runs.sweep.Sweep.report", fails)
    files = ["--out", str(tmp_path / "x.html"), "--csv", str(tmp_path / "x.csv")]
    assert typed("sweep", "--layers", "1", "--no-control", *files, *QUICK) == 2
    told = capsys.readouterr()
    assert "layer 1, coefficient 1" in told.out and "completions: " in told.out
    assert told.err.splitlines()[-1].lower().startswith("steerlens: ") and "no space" in told.err.lower()
    assert (tmp_path / "x.csv").stat().st_size > 100


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
class TestInAShell:
    def test_a_closed_pipe_is_survived(self, shell: Shell, tmp_path: Path) -> None:
        done = shell(f"{LINE} --out x.html --csv x.csv | true")
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr and b"Broken pipe" not in done.stderr
        assert (tmp_path / "here" / "x.html").stat().st_size > 1_000_000
        assert (tmp_path / "here" / "x.csv").read_text().startswith("condition,")

    def test_a_poor_console_devices_and_named_pipes(self, shell: Shell) -> None:
        files = "--out /dev/null --csv >(cat > got.csv)"
        done = shell(f"{LINE} {files} && sleep 1 && head -c 10 got.csv", PYTHONIOENCODING="cp1252")
        assert done.returncode == 0, done.stderr.decode()
        out = done.stdout.decode("cp1252")
        assert "x - y" in out and "| unsteered |" in out and "?" not in out
        assert out.endswith("condition,")
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    def test_a_full_disk_behind_stdout_is_one_line_after_the_files(self, shell: Shell, tmp_path: Path) -> None:
        done = shell(f"test -e /dev/full || exit 77; {LINE} --csv x.csv > /dev/full")
        if done.returncode == 77:
            pytest.skip("no /dev/full")
        assert done.returncode == 2
        assert done.stderr.decode().splitlines()[-1].startswith("steerlens: cannot print: no space left")
        assert (tmp_path / "here" / "x.csv").exists()
