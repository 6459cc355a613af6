"""Where an SQLite file of ours may be: what kind of file it is, its path, and whether the disk is this machine's."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from steerlens.errors import SteerlensError

# Where a write-ahead log is safe: it uses memory shared by all processes that have the file open, so one machine only.
# Anywhere else (NFS, Lustre, FUSE, shares of virtual machines) SQLite would not notice, and two machines would destroy
# the file.
_LOCAL = frozenset(
    "aufs bcachefs btrfs ecryptfs exfat ext2 ext3 ext4 f2fs fuseblk hfsplus jfs nilfs2 ntfs3 overlay ramfs reiserfs "
    "rootfs tmpfs vfat xfs zfs".split()
)
_MOUNTS = Path("/proc/self/mountinfo")

Identity: TypeAlias = tuple[int, int] | None
"""Device and inode of a file; None where there is none."""


@dataclass(frozen=True)
class FileKind:
    """What distinguishes a kind of file from all others, and what it is called in errors."""

    name: str
    """In full, "steerlens store"."""
    noun: str
    """In short, "store"."""
    holds: str
    """What is safe once it is written, "finished conditions"."""
    made_by: str
    """What writes such files, "sweep(..., store=...)"."""
    application: int
    """SQLite's `application_id`: tells it from other people's SQLite files."""
    version: int
    """Of the tables. A file with another version is refused, never changed."""
    schema: str
    """The statements that make the tables, each ended by a semicolon and a new line."""


def places(path: str | Path, kind: FileKind) -> tuple[Path, Path]:
    """The path to show, and where it leads."""
    try:
        shown = Path(path).expanduser().absolute()
        return shown, shown.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a folder that is gone, a loop, a zero byte
        why = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
        raise SteerlensError(f"{str(path)!r} cannot be used as a {kind.name}: {why}; give another path") from error


def check_place(path: Path, place: Path, kind: FileKind, *, writable: bool) -> None:
    """Raise unless a file of the kind exists or, if writable, can be created. SQLite checks what is in it.

    The file is not opened here: under POSIX, closing it would release the locks of this process's other connections.
    """
    mode = 0
    try:
        status = os.stat(place)
        mode = status.st_mode
        short = stat.S_ISREG(mode) and status.st_size == 1
    except (FileNotFoundError, NotADirectoryError):
        short = False
        if writable and not os.path.isdir(place.parent):
            raise SteerlensError(
                f"cannot keep a {kind.noun} at {path}: its folder does not exist; make it first"
            ) from None
    except OSError as error:
        raise SteerlensError(f"{path} cannot be used as a {kind.name}: {error.strerror}; give another path") from error
    if not writable and not stat.S_ISREG(mode):
        raise SteerlensError(f"no {kind.noun} at {path}; give the path of one written with {kind.made_by}")
    if stat.S_ISDIR(mode):
        raise SteerlensError(f"cannot keep a {kind.noun} at {path}: it is a folder; give a file name in it")
    if mode and not stat.S_ISREG(mode):
        raise SteerlensError(f"{path} is no {kind.name} (a device or a pipe); give another path")
    if short:  # SQLite takes a one-byte file for an empty one, and would overwrite it
        raise SteerlensError(f"{path} is no {kind.name} (not an SQLite file); it stays as it is: give another path")


def on_this_machine(place: Path) -> bool:
    """Whether the file is on a disk or in the memory of this machine. Only Linux can tell; elsewhere it is assumed."""
    try:
        mounts = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError:
        return True
    longest, kind = "", ""
    for line in mounts:
        mount, _, device = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), mount.split()[4])
        if place.is_relative_to(point) and len(point) >= len(longest):
            longest, kind = point, device.split()[0]
    return kind in _LOCAL


def beside(place: Path, log: str) -> Path:
    """A file that SQLite keeps next to the database, such as its "-wal"."""
    return place.with_name(place.name + log)


def identity(path: Path) -> Identity:
    """The identity of a file, whatever its name."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def has_content(path: Path) -> bool:
    """Whether the file exists and is not empty."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False
