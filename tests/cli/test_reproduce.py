"""`steerlens reproduce`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_a_page_of_results_is_written(typed: Callable[..., int], monkeypatch, tmp_path: Path, capsys) -> None:
    from steerlens.experiments import suite

    tiny = {"batch": 2, "tokens": 8, "forwards": 2, "seeds": 2}
    changed = {"overhead": suite.Experiment(suite.overhead, tiny, seeded=False)}
    monkeypatch.setattr(suite, "EXPERIMENTS", {**suite.EXPERIMENTS, **changed})
    assert typed("reproduce", "overhead", "--quick", "--out", str(tmp_path / "out")) == 0
    assert "index.html" in capsys.readouterr().out
    assert "steerlens reproduce overhead --quick" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_it_says_what_it_cannot_do(typed: Callable[..., int], monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed("reproduce", "knowledge", "--data", "conceptnet.parquet") == 2
    assert "cannot be read; give NAME=PATH" in capsys.readouterr().err
    assert typed("reproduce", "knowledge", "--data", "knowledge=missing.parquet") == 2
    assert "not done: knowledge (" in capsys.readouterr().err
