"""The README's code runs as it stands, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_all_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    code = blocks("python")
    assert len(code) == 10  # the eight tasks, the real model, and the experiments
    for block in code:
        exec(compile(block, str(README), "exec"), names)
    assert (tmp_path / "weddings.html").stat().st_size > 1_000_000
    assert "blocks.4.hook_resid_pre" in capsys.readouterr().out
    scores = names["scores"]  # the seventh task: the vector makes a sentence about a wedding more likely
    means = scores.groupby("label")["logprob"].mean()  # type: ignore[attr-defined]
    assert (means.drop("unsteered") > means["unsteered"]).all()


def test_the_shell_lines_name_real_commands_and_options() -> None:
    from typer.testing import CliRunner

    from steerlens.cli import app

    help_of = {
        name: CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        for name in ("demo", "get", "steer", "sweep", "reproduce")
    }
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("steerlens ")]
    assert lines
    for line in lines:
        command = line.split("#")[0].split()
        for option in (word for word in command if word.startswith("--")):
            assert option in help_of[command[1]], line


def test_every_file_the_readme_points_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (README.parent / target).is_file(), target
