"""`steerlens reproduce`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_a_page_of_results_is_written(typed: Callable[..., int], monkeypatch, tmp_path: Path, capsys) -> None:
    from steerlens.experiments import suite

    tiny = {"batch": 2, "tokens": 8, "forwards": 2, "seeds": 2}
    changed = {"overhead": suite.Experiment(suite.overhead, tiny, seeded=False)}
    monkeypatch.setattr(suite, "EXPERIMENTS", {**suite.EXPERIMENTS, **changed})
    tiny_knowledge = suite.Experiment(suite.knowledge, {"limit": 6}, data="data")
    monkeypatch.setattr(suite, "EXPERIMENTS", {**suite.EXPERIMENTS, **changed, "knowledge": tiny_knowledge})
    questions = tmp_path / "my questions.jsonl"
    rows = [{"masked_sentence": "The sky above us is [MASK].", "obj_label": "blue"}] * 3
    questions.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = tmp_path / "out"
    options = ["--quick", "--data", f"knowledge={questions}", "--seed", "3", "--out", str(out)]
    assert typed("reproduce", "overhead", "knowledge", *options) == 0
    assert "index.html" in capsys.readouterr().out
    end = f"--seed 3 --out {out}"
    said = {
        "index": f"steerlens reproduce overhead knowledge --quick --data &#x27;knowledge={questions}&#x27; {end}",
        "overhead": f"steerlens reproduce overhead --quick {end}",
        "knowledge": f"steerlens reproduce knowledge --quick --data &#x27;knowledge={questions}&#x27; {end}",
    }
    for name, command in said.items():
        assert command in (out / f"{name}.html").read_text(encoding="utf-8"), name


def test_it_says_what_it_cannot_do(typed: Callable[..., int], monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed("reproduce", "knowledge", "--data", "conceptnet.parquet") == 2
    assert "cannot be read; give NAME=PATH" in capsys.readouterr().err
    assert typed("reproduce", "knowledge", "--data", "knowledge=missing.parquet") == 2
    assert "not done: knowledge (" in capsys.readouterr().err
