"""The table of methods: a row for what was measured, and nothing measured twice."""

from __future__ import annotations

import csv
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import methods_table


def test_a_small_table_and_what_is_resumed(
    demo: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    monkeypatch.setattr(methods_table.sl, "load_model", lambda name: demo)
    monkeypatch.setattr(methods_table, "PROMPTS", ("The next morning she",))
    options = ["--n", "1", "--tokens", "2", "--topics", "weddings", "--sites", "z", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["methods_table.py", *options])
    methods_table.main()
    rows = list(csv.DictReader(out.open()))
    assert [row["operation"] for row in rows if row["method"] == "pca"] == list(methods_table.OPERATIONS)
    assert [row["method"] for row in rows][:3] == ["unsteered", "random", "actadd"]
    assert {row["method"] for row in rows} >= {"mean_difference", "probe, logistic", "probe, lda", "top heads (ITI)"}
    assert all(float(row["surprise"]) > 0 and 0 <= float(row["fluent"]) <= 1 for row in rows)
    printed = capsys.readouterr().out
    assert "mean_difference" in printed and "affine" in printed
    kept = [row for row in rows if row["method"] != "pca"]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    methods_table.main()
    again = list(csv.DictReader(out.open()))
    assert len(again) == len(rows)
    assert [row["effect"] for row in again[-4:]] == [row["effect"] for row in rows if row["method"] == "pca"]
