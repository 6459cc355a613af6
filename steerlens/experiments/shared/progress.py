"""`progress_bar`: the bar of an experiment, the same for all."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm


def progress_bar(total: int | None, *, unit: str, what: str, progress: bool | None, leave: bool = True) -> Any:
    """A bar of `total` units to be used in a `with`; `progress=None` shows it on terminals and in notebooks only."""
    return tqdm(total=total, unit=unit, desc=what, disable=None if progress is None else not progress, leave=leave)
