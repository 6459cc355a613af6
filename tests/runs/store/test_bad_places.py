"""Places that cannot be written, full, locked or gone: said in one line, and what was kept stays."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import steerlens as sl
from steerlens.runs import parts, sqlite_file
from tests.processes import in_child, let_in, unprivileged
from tests.runs.store.runs import run, same, told


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
