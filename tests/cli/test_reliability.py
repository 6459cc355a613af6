"""`steerlens reliability`: the same numbers as the library's, its files, and what it says of bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import steerlens as sl

QUESTIONS = ("Is the sky blue? I say", "Do dogs bark? I say", "Is snow hot? I say", "Are you well? I say")


def test_it_is_what_the_library_finds(typed: Callable[..., int], demo, tmp_path: Path, capsys) -> None:
    file, page, table = tmp_path / "answers.json", tmp_path / "x.html", tmp_path / "x.csv"
    pairs = [(f"{one} yes", f"{one} no") for one in QUESTIONS]
    file.write_text(json.dumps([{"positive": yes, "negative": no} for yes, no in pairs]))
    files = ["--out", str(page), "--csv", str(table)]
    assert typed("reliability", str(file), "--layer", "4", "--coeff", "1", *files) == 0
    out = capsys.readouterr().out
    assert "steered the wrong way" in out and "held out" in out and page.stat().st_size > 100_000
    made_of, held_out = sl.ContrastSet.read(file).split(0.5, seed=0)
    vector = sl.mean_difference(demo, made_of, layer=4)
    alone = sl.reliability(demo, vector, made_of, held_out=held_out, coeffs=[1.0])
    written = pd.read_csv(table)
    assert written["value"].round(3).tolist() == alone.frame["value"].round(3).tolist()


def test_bad_input_is_one_line(typed: Callable[..., int], tmp_path: Path, capsys) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps({"text": one, "label": int(n < 1)}) + "\n" for n, one in enumerate(QUESTIONS)))
    assert typed("reliability", str(file)) == 2
    assert "not pairs" in capsys.readouterr().err
    assert typed("reliability", str(tmp_path / "none.json")) == 2
    assert "none.json" in capsys.readouterr().err.splitlines()[-1]
