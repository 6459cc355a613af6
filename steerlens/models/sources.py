"""Where a model was loaded from, and the line of Python that loads it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlens.models.naming import model_name
from steerlens.models.protocol import HookedModel, is_bridge

_NOTE = "_steerlens_source"
_OPTIONS = "_steerlens_load_options"


def note_source(model: HookedModel, source: Any, **options: Any) -> None:
    """Nothing is returned: the model knows the name, or the full path, that it was loaded from, and how.

    Args:
        options: further arguments of `load_model` that a new session needs; those that are None, or objects that no
            text stands for, are left out.
    """
    if isinstance(source, str | Path):
        vars(model)[_NOTE] = _place(source)
        kept = {name: _plain(value) for name, value in options.items()}
        vars(model)[_OPTIONS] = {name: value for name, value in kept.items() if value is not None}


def source_of(model: HookedModel) -> str | None:
    """What to give `load_model` for this model; None where it came as an object."""
    found: str | None = vars(model).get(_NOTE)
    return found


def load_code(model: HookedModel, *, folded: bool) -> str:
    """The line that loads the model in a new session, from the path or name that it was loaded from.

    A model that came as an object has a comment that says so.

    Args:
        folded: whether its weights are processed (see `ModelStamp`).
    """
    options: dict[str, Any] = {} if folded else {"processing": False}
    options |= {"bridge": True} if is_bridge(model) else {}
    if (dtype := str(model.cfg.dtype).removeprefix("torch.")) != "float32":
        options["dtype"] = dtype
    options |= vars(model).get(_OPTIONS, {})
    if "device_map" in options:  # makes a bridge with unprocessed weights, and takes neither argument
        options = {name: value for name, value in options.items() if name not in ("processing", "bridge")}
    source = source_of(model)
    given = _literal(source if source is not None else model_name(model))
    told = "" if source is not None else "  # or the model that was given"
    return f"model = sl.load_model({', '.join([given, *(f'{k}={_literal(v)}' for k, v in options.items())])}){told}"


def _place(source: str | Path) -> str:
    """The full path of what is on the disk; names as they are."""
    try:
        path = Path(source).expanduser()
        is_there = str(source) not in ("demo", "smollm2") and path.exists()
    except (OSError, RuntimeError):  # no name of a file
        is_there = False
    return str(path.resolve()) if is_there else str(source)


def _plain(value: Any) -> Any:
    if isinstance(value, str | Path):
        return _place(value)
    if isinstance(value, Mapping):
        return {str(name): one for name, one in value.items() if isinstance(one, str | int)}
    return value if isinstance(value, bool | int) else None


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
