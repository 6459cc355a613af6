"""Files that are written whole or not at all: the old file stays until the new one is complete.

Links are followed, so it is their target that changes. Anything but a regular file (a terminal, /dev/null, a named
pipe) is written to in place and never replaced.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from steerlens.arguments import path_to
from steerlens.errors import SteerlensError

# Names of files that a process holds open: such a file is being written by something else as well.
_OPEN_FILES = ("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/")


def check_place(path: object, what: str = "the file") -> Path:
    """`path` as a Path, if a file can be written there. Call it before long work; nothing is left on disk.

    Args:
        what: names the file in the error: "the report".

    Raises:
        SteerlensError: a folder that is missing or not accessible, a folder in place of a file, a name that the file
            system does not accept, something that cannot be written to.
    """
    given = path_to(path)
    try:
        target = _target(given)
        if target is None:
            return given
        handle, trial = tempfile.mkstemp(dir=target.parent, prefix=".steerlens-", suffix=".part")
        os.close(handle)
        os.unlink(trial)
    except OSError as error:
        raise _unwritable(given, error, what) from None
    except _Unfit as reason:
        raise SteerlensError(f"cannot write {what} to {given}: {reason}") from None
    return given


def write_whole(path: object, content: str | bytes, what: str = "the file") -> Path:
    """The path of a file that holds `content`, text as UTF-8. On any failure the old file is untouched.

    Line endings stay as they are. Half surrogate pairs, which broken bytes in a completion leave behind, are written
    as "?".

    Raises:
        SteerlensError: the path cannot be written, or the disk is full.
    """
    given = check_place(path, what)
    payload = content if isinstance(content, bytes) else content.encode("utf-8", errors="replace")
    try:
        target = _target(given)
        if target is None:
            with open(given, "wb") as file:
                file.write(payload)
        else:
            _replace(target, payload)
    except OSError as error:
        raise _unwritable(given, error, what) from error
    return given


class _Unfit(Exception):
    """Why a path cannot hold a file, where the operating system would not say so itself."""


def _target(path: Path) -> Path | None:
    """The regular file (existing or new) that `path` leads to; None for what must be written in place."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None:
        if stat.S_ISDIR(mode):
            raise _Unfit("it is a folder; give a file name in it")
        if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            raise _Unfit("it is a disk or a socket; choose another path")
        if not os.access(path, os.W_OK):
            raise _Unfit("permission denied; choose another path")
        if not stat.S_ISREG(mode) or str(path).startswith(_OPEN_FILES):
            return None
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        if target.parent.exists():
            raise _Unfit(f"{target.parent} is no folder; choose another path")
        raise _Unfit(f"folder {target.parent} does not exist; make it first")
    return target


def _replace(target: Path, payload: bytes) -> None:
    # (a short name of its own: that of the target may be as long as names can be)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".steerlens-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())  # some file systems say only here that they are full
        os.chmod(temporary, _permissions(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _permissions(target: Path) -> int:
    """Those of the file being replaced, or those of any new file (mkstemp makes files only the owner can read)."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(os.stat(target).st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _unwritable(path: Path, error: OSError, what: str) -> SteerlensError:
    reason = (error.strerror or str(error)).lower()
    return SteerlensError(f"cannot write {what} to {path}: {reason}; choose another path")
