"""Files appear whole or not at all; links are followed; what is no regular file is never replaced."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from steerlens.errors import SteerlensError
from steerlens.whole_files import check_place, write_whole
from tests.processes import let_in, unprivileged


def test_the_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    assert write_whole(str(path), "new\r\n−") == path
    assert path.read_bytes() == "new\r\n−".encode()
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_new_file_has_the_permissions_of_any_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    plain, own = tmp_path / "plain", tmp_path / "own"
    plain.write_text("")
    assert write_whole(tmp_path / "new", "").stat().st_mode == plain.stat().st_mode
    own.write_text("old")
    own.chmod(0o640)
    assert stat.S_IMODE(write_whole(own, "new").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch, error: BaseException, step: str) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(SteerlensError if isinstance(error, OSError) else KeyboardInterrupt):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    assert write_whole(path, "all").read_text() == "all"


@pytest.mark.parametrize("kind", ["missing folder", "folder", "file as folder", "long name", "NUL", "nobody's home"])
def test_a_place_that_cannot_be_written_is_one_line_before_any_work(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("x")
    path = {
        "missing folder": tmp_path / "no" / "r.html",
        "folder": tmp_path,
        "file as folder": tmp_path / "file" / "r",
        "long name": tmp_path / ("x" * 300),
        "NUL": "a\0b",
        "nobody's home": "~nobody-of-that-name/x",
    }[kind]
    for attempt in (lambda: check_place(path), lambda: write_whole(path, "text")):
        with pytest.raises(SteerlensError) as caught:
            attempt()
        assert "\n" not in str(caught.value) and "\0" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


def test_asking_for_the_place_writes_nothing(tmp_path: Path) -> None:
    assert check_place(tmp_path / "r.html") == tmp_path / "r.html"
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no links or pipes of this kind")
class TestOfPosix:
    def test_a_link_is_followed_to_the_file_that_it_names(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        link, target = tmp_path / "link", tmp_path / "there" / "target"
        target.write_text("old")
        link.symlink_to("there/target")
        write_whole(link, "new")
        assert link.is_symlink() and target.read_text() == "new"
        new = tmp_path / "dangling"
        new.symlink_to("there/made")
        write_whole(new, "made")
        assert new.is_symlink() and (tmp_path / "there" / "made").read_text() == "made"

    def test_links_in_a_circle_are_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(SteerlensError, match="cannot write"):
            write_whole(tmp_path / "a", "text")

    def test_a_device_is_written_to_and_stays_one(self) -> None:
        assert write_whole("/dev/null", "gone") == Path("/dev/null")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

    def test_a_full_device_is_one_line(self) -> None:
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full")
        with pytest.raises(SteerlensError, match="no space left"):
            write_whole("/dev/full", "text")

    def test_a_pipe_is_written_to_and_stays_one(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
        check_place(pipe)  # does not wait for a reader
        reader.start()
        write_whole(pipe, "through")
        reader.join(timeout=300)
        assert got == ["through"] and stat.S_ISFIFO(os.stat(pipe).st_mode)

    def test_what_this_process_has_open_is_written_in_place(self, tmp_path: Path) -> None:
        with open(tmp_path / "out", "w") as file:
            if not os.path.exists(f"/dev/fd/{file.fileno()}"):
                pytest.skip("no /dev/fd")
            write_whole(f"/dev/fd/{file.fileno()}", "text")
            assert (tmp_path / "out").read_text() == "text"

    @pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
    def test_what_may_not_be_written_is_one_line(self, tmp_path: Path) -> None:
        let_in(tmp_path)
        closed = tmp_path / "closed"
        closed.write_text("old")
        closed.chmod(0o444)
        tmp_path.chmod(0o555)

        def refused() -> None:
            with pytest.raises(SteerlensError, match="permission denied"):
                write_whole(closed, "new")
            with pytest.raises(SteerlensError, match="permission denied"):
                check_place(tmp_path / "new")

        assert unprivileged(refused) == 0
        tmp_path.chmod(0o755)
        assert closed.read_text() == "old"
