"""A transaction is on the disk whole or not at all; misuse is not told as damage."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from steerlens.errors import SteerlensError
from steerlens.runs.sqlite_file import damage
from tests.runs.sqlite_file.cats import LITTER, add, litters, opened, told


def test_misuse_is_not_told_as_damage(tmp_path: Path) -> None:
    file = opened(tmp_path / "cats")
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            add(file, 0)
        except SteerlensError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "only be used in that same thread; open it in the thread that uses it" in str(errors[0])
    file.close()
    told("cannot use the book .*: Cannot operate on a closed database; open", lambda: add(file, 0))


def test_what_fails_is_undone(tmp_path: Path) -> None:
    file = opened(tmp_path / "cats")

    def fail(error: BaseException) -> None:
        with file.transaction() as db:
            db.execute("INSERT INTO cat VALUES (9, 9)")
            raise error

    for error in (KeyboardInterrupt(), ZeroDivisionError()):
        with pytest.raises(type(error)):
            fail(error)
    told(r"is damaged \(a cat with two heads\); it stays", lambda: fail(damage("a cat with two heads")))
    add(file, 0)
    file.close()
    assert litters(tmp_path / "cats") == {0}


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    """A power cut cannot be had here, so what SQLite is asked for must do: EXTRA, which syncs the folder as well."""
    file = opened(path)
    with file.reading() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (3,)
    file.close()


def test_in_memory_there_is_no_file() -> None:
    file = opened(None)
    add(file, 0)
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM cat").fetchone() == (LITTER,)
    file.close()
