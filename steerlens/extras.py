"""Optional packages: imported where they are needed, with one line that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from steerlens.errors import SteerlensError


def needs(*modules: str, extra: str) -> tuple[Any, ...]:
    """The imported modules, in the order named.

    Raises:
        SteerlensError: one is not installed; the message says which extra of this package brings it.
    """
    try:
        return tuple(importlib.import_module(name) for name in modules)
    except ImportError as error:
        raise SteerlensError(f'{error.name or modules[0]} is not installed; pip install "steerlens[{extra}]"') from None
