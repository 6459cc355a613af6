"""Where a model was loaded from, as `load_model` takes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlens.models.protocol import HookedModel

_NOTE = "_steerlens_source"


def note_source(model: HookedModel, source: Any) -> None:
    """Nothing is returned: the model knows the name, or the full path, that it was loaded from."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        vars(model)[_NOTE] = str(path.resolve()) if path.exists() and source not in ("demo", "smollm2") else str(source)


def source_of(model: HookedModel) -> str | None:
    """What to give `load_model` for this model; None where it came as an object."""
    found: str | None = vars(model).get(_NOTE)
    return found
