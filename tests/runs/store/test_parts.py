"""A sweep with a store gives the very table, and computes only what is missing."""

from __future__ import annotations

import pickle
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import steerlens as sl
import steerlens.cli as cli
from steerlens.measures.metrics import words
from steerlens.runs import parts
from tests.conftest import KINDS, loaded
from tests.runs.store.runs import CONDITIONS, ROWS, contents, run, same


def same_but_rounding(frame: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal to the last bit but for the surprise, whose last digits move with the shape of the batch."""
    pd.testing.assert_series_equal(frame["surprise"], expected["surprise"], atol=1e-5)
    same(frame.assign(surprise=expected["surprise"]), expected)


def contents_any(path: Path) -> list[tuple[str]]:
    """Keys of the finished runs, read without steerlens."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT key FROM run WHERE finished IS NOT NULL").fetchall()


def test_a_store_changes_nothing(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    fresh = run(model, path)
    same(fresh.frame, expected)
    assert len(contents(path)) == CONDITIONS
    again = run(model, path)
    same(again.frame, expected)
    assert again.summary.equals(fresh.summary)
    assert pickle.dumps(again.frame) == pickle.dumps(fresh.frame)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [3, None])
def test_parts_of_any_size_give_the_table_of_one_run(kind: str, batch_size: int | None, tmp_path: Path) -> None:
    model = loaded("llama", kind)
    whole = run(model, None, control=None).frame
    same_but_rounding(run(model, tmp_path / "a", control=None, batch_size=batch_size).frame, whole)


def test_only_what_is_missing_is_computed(model: Any, expected: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    path, computed = tmp_path / "runs.sqlite", []
    generate = parts.generate

    def counting(model: Any, prompts: Any, conditions: Any, **settings: Any) -> pd.DataFrame:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append([condition.label for condition in conditions])
        return generate(model, prompts, conditions, **settings)

    monkeypatch.setattr(parts, "generate", counting)
    with pytest.raises(KeyboardInterrupt):
        run(model, path)
    assert len(contents(path)) == 4  # two parts of two
    partial = sl.read_store(path)
    assert len(partial) == 4 * ROWS
    (record,) = partial.attrs["sweeps"]
    assert (record["conditions"], record["finished"]) == (CONDITIONS, 4)
    computed.clear()
    same(run(model, path).frame, expected)
    assert sorted(map(len, computed)) == [1, 2]  # the interrupted one again, when the others are done
    computed.clear()
    run(model, path, metrics=[words("the", "a")])
    assert computed == [], "another metric needs no new completion"


def test_what_completions_depend_on_tells_runs_apart(model: Any, tmp_path: Path) -> None:
    path, plain = tmp_path / "runs.sqlite", {"layers": [1], "control": None}
    changes = [
        {},
        {"seed": 1},
        {"n": 3},
        {"max_new_tokens": 4},
        {"temperature": 0.9},
        {"top_p": 0.4},
        {"top_k": 5},
        {"frequency_penalty": 0.5},
        {"placement": "back"},
        {"coeffs": [2.5]},
        {"layers": [2]},
    ]
    for number, change in enumerate(changes, 1):
        other = run(model, path, **plain | change)
        same(other.frame, run(model, None, **plain | change).frame)
        assert sl.read_store(path)["sweep"].iloc[-1] == number
    run(model, path, **plain)
    assert len(contents_any(path)) == 2 * len(changes) - 3, "the last three differ in what is injected only"


def test_other_weights_are_another_model(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    """One number of one weight, changed in place by the least that a float can change."""
    path = tmp_path / "runs.sqlite"
    run(model, path)
    loaded.cache_clear()
    other = loaded("gpt2", KINDS[0])
    weight = next(weight for weight in other.parameters() if weight.ndim == 1)
    weight.data[3] = weight.data[3].nextafter(weight.new_tensor(1e9))
    run(other, path)
    assert len(sl.read_store(path)["weights"].unique()) == 2
    loaded.cache_clear()


def test_sweeps_share_what_they_have_in_common(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    run(model, path, coeffs=[1.0], control=None)
    assert len(contents(path)) == 4
    more = run(model, path, coeffs=[1.0, 2.0, 1.0], control=None)
    assert len(contents(path)) == 7
    same_but_rounding(more.frame, run(model, None, coeffs=[1.0, 2.0, 1.0], control=None).frame)
    frame = sl.read_store(path)
    assert frame["sweep"].value_counts().to_dict() == {
        1: 4 * ROWS,
        2: 7 * ROWS,
    }  # a coefficient that is given twice counts once


def test_the_command_line_goes_on(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "runs.sqlite"

    def typed(where: Path, n: int) -> int:
        words = f"steerlens sweep war cat --layers 1 --n {n} --tokens 4 --no-control --device cpu --store".split()
        monkeypatch.setattr(sys, "argv", [*words, str(where)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    assert typed(path, 2) == 0
    monkeypatch.setattr(parts, "generate", None)  # nothing is left to generate
    assert typed(path, 2) == 0
    assert f"kept in {path}" in capsys.readouterr().out
    assert len(sl.read_store(path)) == 4
    monkeypatch.setattr(
        "steerlens.cli.options.ModelOptions.load", None
    )  # nor is a model loaded for a place that cannot be written
    assert typed(tmp_path, 2) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "it is a folder" in error
