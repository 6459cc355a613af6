"""Places and files that are none of ours are refused in one line, and stay as they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from steerlens.runs.sqlite_file import SqliteFile
from tests.processes import in_child, let_in, unprivileged
from tests.runs.sqlite_file.cats import CATS, add, litters, opened, told


def both(path: Path | str, match: str, reading: str | None = None) -> None:
    told(match, lambda: opened(path))
    told(reading or match, lambda: opened(path, writable=False))


def test_places_that_are_none(tmp_path: Path, monkeypatch) -> None:
    both("a\0b", "cannot be used as a book of cats: embedded null byte")
    both("~nobody-of-this-name/cats", "cannot be used as a book of cats: Could not determine home")
    both(tmp_path / ("x" * 300), "cannot be used as a book of cats: File name too long")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    both(tmp_path / "loop", "cannot be used as a book of cats: .*links?|cannot be used as a book of cats: Symlink loop")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere" / "cats")
    for nowhere in (tmp_path / "nowhere" / "cats", tmp_path / "lost", Path(__file__) / "cats"):
        both(nowhere, "its folder does not exist; make it first", "no book at .* one written with meow")
    both(tmp_path, "it is a folder; give a file name in it", "no book at .* one written with meow")
    os.mkfifo(tmp_path / "pipe")
    for device in (tmp_path / "pipe", "/dev/null"):
        both(device, "is no book of cats .a device or a pipe", "no book at")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    both("cats", "'cats' cannot be used as a book of cats: No such file")


def test_a_link_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "cats")
    file = opened(tmp_path / "link")
    add(file, 0)
    assert file.path == tmp_path / "link"
    file.close()
    assert litters(tmp_path / "cats") == {0}


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 99, 100, 511, 512, 4096, 9000])
def test_other_files_of_any_size_stay(size: int, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for content in (b"dear diary, " * 1000, b"SQLite format 3\0" + b"it is not, " * 1000, bytes(9000)):
        path.write_bytes(content[:size])
        both(path, "is no book of cats .not an SQLite file.; it stays as it is")
        assert path.read_bytes() == content[:size]
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_may_be_filled_but_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cats"
    path.touch()
    told("is empty: nothing has been written to it", lambda: opened(path, writable=False))
    opened(path).close()
    opened(path, writable=False).close()


def test_other_kinds_and_versions_are_refused_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "cats"
    opened(path).close()
    before = path.read_bytes()
    dogs = replace(CATS, name="book of dogs", application=0x646F6773)
    for writable in (True, False):
        told("is an SQLite file but no book of dogs", lambda w=writable: SqliteFile(path, dogs, writable=w))  # type: ignore[misc]
        for version, which in ((2, "a newer steerlens"), (4, "an older steerlens")):
            kind = replace(CATS, version=version)
            told(f"has version 3.*{which}", lambda k=kind, w=writable: SqliteFile(path, k, writable=w))  # type: ignore[misc]
    assert path.read_bytes() == before


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A folder that unprivileged processes may enter."""
    folder = tmp_path / "folder"
    folder.mkdir()
    let_in(folder)
    yield folder
    folder.chmod(0o755)


def test_a_folder_that_nobody_may_look_into(open_to_all: Path) -> None:
    opened(open_to_all / "cats").close()
    open_to_all.chmod(0o600)
    assert unprivileged(lambda: both(open_to_all / "cats", "cannot be used as a book of cats: Permission denied")) == 0


def test_a_killed_processs_log_is_not_passed_over_where_nothing_can_be_written(open_to_all: Path) -> None:
    """Through a link too: beside the link there is no log, and the file without its log is an old one."""
    path, link = open_to_all / "cats", open_to_all.parent / "link"
    link.symlink_to(path)

    def dies() -> None:
        add(opened(path), 0)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(dies) == -signal.SIGKILL
    (open_to_all / "cats-shm").unlink()
    for file in open_to_all.iterdir():
        file.chmod(0o444)
    open_to_all.chmod(0o555)

    def reads() -> None:
        for name in (path, link):
            told("was left by a process that was killed", lambda name=name: opened(name, writable=False))  # type: ignore[misc]

    assert unprivileged(reads) == 0
    open_to_all.chmod(0o755)
    assert litters(path) == {0}
