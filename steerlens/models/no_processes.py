"""`no_processes`: other code may want to start programs while a model is loaded; it cannot."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from steerlens.errors import SteerlensError


class MissingPackage(SteerlensError):
    """A package is missing that other code would install behind the user's back."""


_lock = threading.RLock()


@contextmanager
def no_processes(what: str) -> Iterator[None]:
    """Inside, this thread can start no program through `subprocess`; others can.

    TransformerLens runs pip where it misses a package for a multimodal model, and pip may replace torch under the
    user's feet. It swallows errors, so the attempt is remembered and raised at the end.

    Raises:
        SteerlensError: a program was about to be started; names the package if that was to be installed.
    """
    thread, tried = threading.get_ident(), []
    with _lock:  # two threads that load would restore each other's
        start = subprocess.Popen.__init__

        def refuse(self: Any, args: Any, *rest: Any, **options: Any) -> None:
            if threading.get_ident() != thread:
                return start(self, args, *rest, **options)
            tried.append(args.split() if isinstance(args, str) else [str(one) for one in args])
            self._child_created = False  # for __del__, which comes also after a failed start
            raise PermissionError("loading a model starts no processes")

        subprocess.Popen.__init__ = refuse  # type: ignore[method-assign]
        try:
            yield
        finally:
            subprocess.Popen.__init__ = start  # type: ignore[method-assign]
    if tried:
        command = tried[0]
        if "install" in command:
            missing = [one for one in command[command.index("install") + 1 :] if not one.startswith("-")]
            raise MissingPackage(
                f"{what} needs the package {' '.join(missing)}, which is not installed (or does not work); "
                f"install a version that fits your torch: pip install {' '.join(missing)}"
            )
        raise SteerlensError(f"{what} cannot be loaded without running {command[0]!r}, and loading starts no processes")
