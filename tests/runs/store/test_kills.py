"""A sweep that is killed goes on where it was, and processes that share a store divide the work."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import steerlens as sl
from steerlens.runs import sqlite_file, store
from steerlens.runs.run_keys import Planned
from tests.processes import dying_before, ended, in_child
from tests.runs.store.runs import CONDITIONS, contents, run, same

# Processes killed at random moments (and 20 more at chosen ones); more where there is time for it.
KILLS = int(os.environ.get("STEERLENS_KILLS", "50"))


def test_processes_killed_at_random_moments_lose_and_double_nothing(
    model: Any, expected: pd.DataFrame, tmp_path: Path
) -> None:
    started = time.perf_counter()
    run(model, tmp_path / "first")
    whole = time.perf_counter() - started
    moments = random.Random(0)
    stores, kills, was_killed = 0, 0, 0
    path, before = tmp_path / "0.sqlite", 0
    while kills < KILLS:
        child = in_child(lambda path=path: run(model, path), wait=False)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 0.7 * whole))
        os.kill(child, signal.SIGKILL)
        was_killed += ended(child) < 0
        kills += 1
        finished = len(contents(path)) if path.exists() else 0
        assert finished >= before, "a finished condition was lost"
        before = finished
        if finished == CONDITIONS or kills % 10 == 0:
            same(run(model, path).frame, expected)  # goes on after the kill
            assert len(contents(path)) == CONDITIONS
            stores += 1
            path, before = tmp_path / f"{stores}.sqlite", 0
    assert was_killed >= KILLS / 2, "most were alive when they were killed"


def test_a_process_killed_before_any_statement_loses_nothing(
    model: Any, expected: pd.DataFrame, tmp_path: Path, monkeypatch
) -> None:
    """Not at random: the process dies before the k-th statement that SQLite is given, inside transactions too."""
    connect = sqlite_file._connect
    path = tmp_path / "runs.sqlite"
    deaths, finished = 0, 0
    for k in (*range(1, 16), *range(16, 200, 23)):
        monkeypatch.setattr(sqlite_file, "_connect", dying_before(k, connect))
        status = in_child(lambda path=path: run(model, path))  # type: ignore[misc]
        monkeypatch.setattr(sqlite_file, "_connect", connect)
        deaths += status == -signal.SIGKILL
        now = len(contents(path))
        assert now >= finished
        finished = now
        if k == 15:
            path, finished = tmp_path / "second.sqlite", 0
    assert deaths >= 18
    same(run(model, path).frame, expected)
    same(run(model, tmp_path / "runs.sqlite").frame, expected)


def test_two_processes_share_a_store(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / f"{number}.sqlite"

        def work(name: str, path: Path = path) -> None:
            run(model, path).frame.to_pickle(tmp_path / name)

        children = [in_child(lambda name=name: work(name), wait=False) for name in ("a", "b")]  # type: ignore[misc]
        if number == 3:  # one dies on the way: the other does its part
            time.sleep(0.15)
            victim = children.pop()
            os.kill(victim, signal.SIGKILL)
            ended(victim)  # this one: the other may have ended first
            (tmp_path / "b").unlink()
        for child in children:
            assert ended(child) == 0
        for name in ("a", "b")[: len(children)]:
            same(pd.read_pickle(tmp_path / name), expected)
        assert len(contents(path)) == CONDITIONS
        same(run(model, path).frame, expected)


def test_two_processes_divide_the_work(tmp_path: Path) -> None:
    """What one has claimed the other leaves alone, unless it is overdue."""
    plan = [Planned(f"c{i}", "steered", 0, 1.0, "front", f"key{i}") for i in range(4)]
    two = [("key0", "key1"), ("key2", "key3")]
    with store.Store(tmp_path / "a") as first, store.Store(tmp_path / "a") as second:
        settings = {"prompts": ["p"], "seed": 0}
        sweep = first.register(plan, rows=1, settings=settings)
        assert second.register(plan, rows=1, settings=settings) == sweep
        assert first.claim(sweep, two) == ("key0", "key1")
        assert second.claim(sweep, two) == ("key2", "key3")
        assert first.claim(sweep, two, patience=60) == ()
        assert first.claim(sweep, two, mine=frozenset({"key0", "key1"})) == ("key2", "key3"), (
            "nobody waits for the dead"
        )
        frame = pd.DataFrame({"sample": [0], "completion": ["x"], "n_tokens": [1], "finished": [True]})
        first.write({"key2": frame, "key3": frame})
        second.write({"key2": frame.assign(completion="y"), "key3": frame})  # too late: the first stays
        assert second.claim(sweep, two) == ("key0", "key1")
        assert second.frame(sweep)["completion"].tolist() == ["x", "x"]


def test_what_does_not_fit_the_plan_is_not_kept(tmp_path: Path) -> None:
    """A run with too few completions, or one that nobody has planned, would be lost, or be taken for damage later."""
    plan = [Planned(f"c{i}", "steered", 0, 1.0, "front", f"key{i}") for i in range(2)]
    frame = pd.DataFrame({"sample": [0, 1], "completion": ["x", "y"], "n_tokens": 1, "finished": True})
    with store.Store(tmp_path / "a") as kept:
        sweep = kept.register(plan, rows=2, settings={"prompts": ["p"], "seed": 0})
        for few in (frame.iloc[:1], frame.iloc[:0], frame.iloc[[0, 1, 1]].assign(sample=[0, 1, 1])[1:]):
            with pytest.raises(sl.SteerlensError, match=r"a condition of 2 completions was given .; nothing is kept"):
                kept.write({"key0": frame, "key1": few})
        with pytest.raises(sl.SteerlensError, match="removed or replaced"):
            kept.write({"key0": frame, "key9": frame})
        assert set(kept.missing(sweep)) == {"key0", "key1"}
        kept.write({"key0": frame, "key1": frame})
        assert kept.frame(sweep)["completion"].tolist() == ["x", "y"] * 2
