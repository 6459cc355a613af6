"""Disks of this machine and file servers: where memory cannot be shared there is no shared log."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from steerlens.runs import sqlite_place
from tests.processes import in_child
from tests.runs.sqlite_file.cats import LITTER, add, journal, lie_on, litters, opened, told


@pytest.mark.parametrize(
    ("mounts", "local"),
    [
        ("1 0 8:1 / / rw - ext4 /dev/sda rw", True),
        ("1 0 8:1 / / rw shared:1 master:2 - nfs4 server:/ rw", False),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / /home/my\\040data rw - fuse.sshfs me@there:/ rw", False),
        ("2 1 0:40 / /home/my\\040data rw - lustre a@tcp:/ rw\n1 0 8:1 / / rw - ext4 /dev/sda rw", False),
        ("1 0 8:1 / / rw - nfs server:/ rw\n2 1 0:40 / /home/my\\040data rw - tmpfs none rw", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / /home/my rw - 9p host rw", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / /home rw - ext4 a rw\n3 2 0:41 / /home rw - cifs b rw", False),
    ],
)
def test_which_places_are_on_this_machine(mounts: str, local: bool, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mounts").write_text(mounts + "\n")
    monkeypatch.setattr(sqlite_place, "_MOUNTS", tmp_path / "mounts")
    assert sqlite_place.on_this_machine(Path("/home/my data/cats")) == local


def test_without_a_list_of_mounts_a_place_is_taken_for_this_machines(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_place, "_MOUNTS", tmp_path / "none")
    assert sqlite_place.on_this_machine(tmp_path / "cats")


def test_a_file_brought_to_a_file_server_has_no_shared_log_there(tmp_path: Path, monkeypatch) -> None:
    """Its log would need memory that machines share: they would destroy each other's work, or none could read it."""
    path = tmp_path / "cats"
    lie_on("disk", tmp_path, monkeypatch)
    file = opened(path)
    add(file, 0)
    file.close()
    assert journal(path) == "wal"
    lie_on("network", tmp_path, monkeypatch)
    file = opened(path)
    add(file, 1)
    assert journal(path) == "delete"
    file.close()
    assert litters(path) == {0, 1}


def test_a_file_brought_to_where_memory_cannot_be_shared(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "cats"

    def dies() -> None:
        file = opened(path)
        add(file, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    lie_on("disk", tmp_path, monkeypatch)
    assert in_child(dies) == -signal.SIGKILL
    (tmp_path / "cats-shm").unlink()
    (tmp_path / "cats-shm").symlink_to(tmp_path / "cats-shm")  # in the way of the shared memory
    told("read-only or closed", lambda: opened(path))
    told("was left by a process that was killed", lambda: opened(path, writable=False))
    lie_on("network", tmp_path, monkeypatch)
    file, other = opened(path), opened(path)
    add(file, 1)
    add(other, 2)
    file.close()
    other.close()
    file = opened(path, writable=False)
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM cat").fetchone() == (3 * LITTER,)
    file.close()
