"""A file or a log that is taken away while it is open is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runs.sqlite_file.cats import add, lie_on, litters, opened, told


def meddle(how: str, path: Path) -> None:
    if how == "removed":
        path.unlink()
    elif how == "replaced":
        other = path.with_name("other")
        opened(other).close()
        other.replace(path)
    elif how == "emptied":
        os.truncate(path, 0)
    elif how == "folder moved":
        path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("how", ["removed", "replaced", "emptied", "folder moved"])
def test_a_file_taken_away_takes_no_more(how: str, path: Path) -> None:
    (path.parent / "folder").mkdir()
    path = path.parent / "folder" / "cats"
    file = opened(path)
    add(file, 0)
    meddle(how, path)
    told("was removed or replaced while it was in use", lambda: add(file, 1))
    file.close()


@pytest.mark.parametrize("how", ["removed", "replaced", "folder moved"])
def test_a_file_taken_away_during_a_transaction_is_noticed(how: str, path: Path) -> None:
    (path.parent / "folder").mkdir()
    path = path.parent / "folder" / "cats"
    file = opened(path)

    def use() -> None:
        with file.transaction() as db:
            db.execute("INSERT INTO cat VALUES (0, 0)")
            meddle(how, path)

    told("was removed or replaced while it was in use", use)
    file.close()


def test_a_log_taken_away_is_noticed_and_its_commits_are_saved(tmp_path: Path, monkeypatch) -> None:
    lie_on("disk", tmp_path, monkeypatch)
    file = opened(tmp_path / "cats")
    add(file, 0)
    for tidied_up in ("cats-wal", "cats-shm"):
        (tmp_path / tidied_up).unlink()
    told("was removed or replaced", lambda: add(file, 1))
    file.close()
    assert litters(tmp_path / "cats") == {0}
