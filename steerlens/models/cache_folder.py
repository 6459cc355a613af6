"""Where files are kept that were fetched or made once and are needed again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The user's folder for what can be fetched again: `STEERLENS_CACHE` if set, else where the system has such things.

    It need not exist.
    """
    if given := os.environ.get("STEERLENS_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "steerlens" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "steerlens"
    # A relative path is to be ignored, says the XDG base directory specification.
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "steerlens"
