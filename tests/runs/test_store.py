"""Stores: a sweep that is killed goes on where it was, with the very table; a file that is no good store says so."""

from __future__ import annotations

import os
import pickle
import random
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import steerlens as sl
import steerlens.cli as cli
from steerlens.measures.metrics import words
from steerlens.runs import parts, sqlite_file, store
from steerlens.runs.run_keys import Planned
from tests.conftest import KINDS, loaded
from tests.processes import dying_before, ended, in_child, let_in, unprivileged

# Processes killed at random moments (and 20 more at chosen ones); more where there is time for it.
KILLS = int(os.environ.get("STEERLENS_KILLS", "50"))
PAIR = sl.PromptPair(" weddings", " ")
PROMPTS = ["I went up to my friend and said", "The weather today is"]
N = 2
ROWS = N * len(PROMPTS)
CONDITIONS = 7


def run(model: Any, path: Path | None, **changes: Any) -> sl.Sweep:
    """A sweep of 7 conditions in 4 parts, a few hundredths of a second each."""
    settings = {"coeffs": [2.0], "n": N, "max_new_tokens": 3, "batch_size": 2 * ROWS, "store": path} | changes
    return sl.sweep(model, PAIR, PROMPTS, **settings)


@pytest.fixture(scope="module")
def model() -> Any:
    return loaded("gpt2", KINDS[0])


@pytest.fixture(scope="module")
def expected(model: Any) -> pd.DataFrame:
    """The table of the same sweep without a store and without parts."""
    return run(model, None, batch_size=None).frame


def same(frame: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal to the last bit: values, types, columns, order, receipts."""
    pd.testing.assert_frame_equal(frame, expected, check_exact=True)
    for mine, theirs in zip(frame.attrs["receipts"], expected.attrs["receipts"], strict=True):
        assert [one | {"applications": 0} for one in mine] == [one | {"applications": 0} for one in theirs]


def same_but_rounding(frame: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal to the last bit but for the surprise, whose last digits move with the shape of the batch."""
    pd.testing.assert_series_equal(frame["surprise"], expected["surprise"], atol=1e-5)
    same(frame.assign(surprise=expected["surprise"]), expected)


def contents_any(path: Path) -> list[tuple[str]]:
    """Keys of the finished runs, read without steerlens."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT key FROM run WHERE finished IS NOT NULL").fetchall()


def contents(path: Path) -> dict[str, int]:
    """Rows of every run by key, read without steerlens; checks that no run is there in part or twice."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return {}  # killed before there were tables
        runs = db.execute(
            "SELECT key, finished IS NOT NULL, (SELECT count(*) FROM completion WHERE run = run.id) FROM run"
        ).fetchall()
        assert all(count == (ROWS if finished else 0) for _, finished, count in runs)
        total, distinct = db.execute(
            "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT run, prompt, sample FROM completion)) "
            "FROM completion"
        ).fetchone()
        assert total == distinct == sum(count for *_, count in runs)
        return {key: count for key, finished, count in runs if finished}


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
    assert frame["sweep"].value_counts().to_dict() == {1: 4 * ROWS, 2: 10 * ROWS}


def test_read_store_gives_the_table_and_the_settings(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    metric = words("weddings")
    result = run(model, path, metrics=[metric])
    frame = sl.read_store(path, metrics=[metric])
    settings = ["model", "weights", "dtype", "what", "max_new_tokens"]
    settings += ["temperature", "top_k", "top_p", "frequency_penalty"]
    assert list(frame.columns) == ["sweep", *result.frame.columns, *settings]
    pd.testing.assert_frame_equal(frame[list(result.frame.columns)], result.frame, check_exact=True)
    first = frame.iloc[0]
    assert (first["what"], first["max_new_tokens"], first["top_p"]) == (str(PAIR), 3, 0.3)
    assert frame.attrs["sweeps"][0]["settings"]["coeffs"] == [2.0]


def test_read_store_tells_dtypes_apart(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    for one in (model, loaded("gpt2", KINDS[0], dtype="bfloat16")):
        run(one, path, layers=[1])
    frame = sl.read_store(path)
    assert frame.groupby("sweep")["dtype"].unique().map(list).tolist() == [["float32"], ["bfloat16"]]
    assert set(frame[frame["sweep"] == 1]["weights"]).isdisjoint(frame[frame["sweep"] == 2]["weights"])


def test_odd_texts_come_back(model: Any, tmp_path: Path, monkeypatch) -> None:
    odd = ["nul \0 inside", "half a character �", "emoji 👩‍👧", "line\nbreak\r\n", "", "quote ' \" ; --"]
    generate = parts.generate

    def odd_ones(*args: Any, **settings: Any) -> pd.DataFrame:
        frame = generate(*args, **settings)
        frame["completion"] = [odd[i % len(odd)] for i in range(len(frame))]
        return frame

    monkeypatch.setattr(parts, "generate", odd_ones)
    path = tmp_path / "runs.sqlite"
    frame = run(model, path, batch_size=None, metrics=[words("x")]).frame
    assert frame["completion"].tolist() == [odd[i % len(odd)] for i in range(len(frame))]
    assert sl.read_store(path)["completion"].tolist() == frame["completion"].tolist()


def test_equal_prompts_stay_two(model: Any, tmp_path: Path) -> None:
    twice = {"prompts": ["The weather"] * 2, "n": 3, "max_new_tokens": 4, "control": None}
    plain = sl.sweep(model, PAIR, **twice).frame
    same(sl.sweep(model, PAIR, **twice, store=tmp_path / "a").frame, plain)


# --------------------------------------------------------------------------------------------------------------- kills


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


# ----------------------------------------------------------------------------------------------------------- bad input


def told(path: Path | str, match: str, model: Any = None) -> None:
    """Both faces of a store say in one line what is wrong."""
    for use in (lambda: sl.read_store(path), *([lambda: run(model, path)] if model is not None else [])):  # type: ignore[arg-type]
        with pytest.raises(sl.SteerlensError, match=match) as error:
            use()
        assert "\n" not in str(error.value)


def test_a_file_that_is_no_store(model: Any, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, whatever its name\n" * 50)
    short = tmp_path / "short.txt"
    short.write_text("x")  # to SQLite as good as empty: it would write over it
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (x)")
        db.execute("INSERT INTO mine VALUES (1)")
        db.commit()
    for path, match in (
        (text, "no steerlens store"),
        (short, "no steerlens store"),
        (other, "SQLite file but no steerlens store"),
    ):
        before = path.read_bytes()
        told(path, match, model)
        assert path.read_bytes() == before


def test_another_version(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    run(model, path)
    for version, words_ in ((99, "a newer steerlens"), (0, "an older steerlens")):
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        told(path, f"has version {version}.*{words_}", model)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {store.VERSION}")
    assert len(contents(path)) == CONDITIONS


def test_a_damaged_store(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    """Truncated, overwritten, one letter changed: an error in one line, or, where nothing was hit, the whole table."""
    whole = tmp_path / "whole.sqlite"
    run(model, whole)
    with closing(sqlite3.connect(whole)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    data = whole.read_bytes()
    truncated = tmp_path / "truncated.sqlite"
    truncated.write_bytes(data[: len(data) // 2])
    told(truncated, "damaged", model)
    moments = random.Random(1)
    errors = 0
    path = tmp_path / "damaged.sqlite"
    for trial in range(int(os.environ.get("STEERLENS_DAMAGES", "40"))):
        damaged = bytearray(data)
        start = moments.randrange(100, len(data) - 64)
        for place in range(start, start + (1 if trial % 2 else 64)):
            damaged[place] ^= moments.randrange(1, 256)
        for left in tmp_path.glob("damaged.sqlite*"):
            left.unlink()
        path.write_bytes(bytes(damaged))
        try:
            frame = sl.read_store(path)
        except sl.SteerlensError:
            errors += 1
        else:
            columns = list(expected.columns[:-1])  # all but the metric
            pd.testing.assert_frame_equal(frame[columns], expected[columns], check_exact=True)
    assert errors > 5


def test_one_changed_letter_is_found(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    run(model, path)
    for statement in (
        "UPDATE completion SET completion = completion || 'x' WHERE run = 3 AND sample = 1 AND prompt = 0",
        "DELETE FROM completion WHERE run = 5 AND sample = 0",
        "UPDATE condition SET layer = 1 WHERE number = 1",
        "UPDATE sweep SET settings = replace(settings, '\"seed\": 0', '\"seed\": 1')",
    ):
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN")
            assert db.execute(statement).rowcount
            db.execute("COMMIT")
            told(path, "damaged.*not those that were written")
        path.unlink()
        run(model, path)


def test_no_place_to_write(model: Any, tmp_path: Path) -> None:
    with pytest.raises(sl.SteerlensError, match="it is a folder"):
        run(model, tmp_path)
    with pytest.raises(sl.SteerlensError, match="folder does not exist"):
        run(model, tmp_path / "nowhere" / "runs.sqlite")
    told(tmp_path / "none.sqlite", "no store at")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the test's unprivileged children cannot write."""
    folder = tmp_path / "closed"
    folder.mkdir()
    let_in(folder)
    yield folder
    folder.chmod(0o755)


def test_a_read_only_place(model: Any, closed_folder: Path) -> None:
    path = closed_folder / "runs.sqlite"
    table = run(model, path).frame
    for left in closed_folder.glob("runs.sqlite-*"):
        left.unlink()
    path.chmod(0o444)
    closed_folder.chmod(0o555)

    def cannot_write() -> None:
        for where in (path, closed_folder / "new.sqlite"):
            with pytest.raises(sl.SteerlensError, match="read-only or closed") as error:
                run(model, where, seed=5)
            assert "\n" not in str(error.value)

    def can_read() -> None:
        frame = sl.read_store(path)
        assert frame["completion"].tolist() == table["completion"].tolist()

    assert unprivileged(cannot_write) == 0
    assert unprivileged(can_read) == 0


def test_a_full_disk(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    """The file may not grow beyond a size (a limit of the process, which a write meets as it would a full disk)."""
    path = tmp_path / "runs.sqlite"
    run(model, path, layers=[0])
    size = path.stat().st_size

    def on_a_full_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 16384, size + 16384))
        with pytest.raises(sl.SteerlensError, match="make room") as error:
            run(model, path, n=60)  # rows by the hundred
        assert "\n" not in str(error.value)

    assert in_child(on_a_full_disk) == 0
    same(run(model, path).frame, expected)


def test_a_store_that_another_process_keeps_locked(model: Any, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.2)
    path = tmp_path / "runs.sqlite"
    run(model, path, layers=[0])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sl.SteerlensError, match="locked"):
            run(model, path)
    run(model, path)


def test_a_store_that_is_removed_meanwhile(model: Any, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "runs.sqlite"
    generate = parts.generate

    def removing(*args: Any, **settings: Any) -> pd.DataFrame:
        path.unlink(missing_ok=True)
        return generate(*args, **settings)

    monkeypatch.setattr(parts, "generate", removing)
    with pytest.raises(sl.SteerlensError, match="removed or replaced"):
        run(model, path)


def test_hooks_on_the_model_are_refused(model: Any, tmp_path: Path) -> None:
    """A key made of weights alone would pass the results of a hooked model off as the model's."""
    hook = ("blocks.1.hook_resid_pre", lambda resid, hook: resid * 1.1)
    with model.hooks(fwd_hooks=[hook]), pytest.raises(sl.SteerlensError, match=r"hooks of yours at blocks\.1"):
        run(model, tmp_path / "runs.sqlite")


def test_bad_settings_leave_no_file(model: Any, tmp_path: Path) -> None:
    for change in ({"n": 0}, {"top_p": 0.0}, {"engine": "cloud"}, {"layers": [99]}):
        with pytest.raises(sl.SteerlensError):
            run(model, tmp_path / "runs.sqlite", **change)
    assert list(tmp_path.iterdir()) == []


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
