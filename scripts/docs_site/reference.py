"""The reference's pages: which names they document, and where these names are defined."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from .pages import DOCS

DIRECTIVE = re.compile(r"^::: (steerlens[\w.]*)$", flags=re.MULTILINE)
LINK = re.compile(r"\]\[(steerlens[\w.]*)\]")
PUBLIC_MODULES = ("steerlens", "steerlens.figures", "steerlens.experiments", "steerlens.steering.exchange")
"""The modules whose `__all__` is public."""


def documented() -> set[int]:
    """The ids of all objects that the reference's pages name."""
    pages = sorted((DOCS / "reference").glob("*.md"))
    names = [name for page in pages for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]
    return {id(looked_up(name)) for name in names}


def public_names() -> Iterator[tuple[str, Any]]:
    """Every public name and what it means."""
    for module in PUBLIC_MODULES:
        home = importlib.import_module(module)
        for name in home.__all__:
            if not name.startswith("__"):
                yield f"{module}.{name}", looked_up(f"{module}.{name}")


def looked_up(name: str) -> Any:
    """What a dotted name means: an attribute where there is one (a function may be called as its module is)."""
    home, _, last = name.rpartition(".")
    module = importlib.import_module(home)
    return getattr(module, last) if hasattr(module, last) else importlib.import_module(name)


def place_of(name: str) -> str:
    """Where a public name is defined: what the reference's anchors are called."""
    thing = looked_up(name)
    if inspect.isfunction(thing) or inspect.isclass(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    return name


def resolved(markdown: str) -> str:
    """A page whose directives and links name the places of definition; directives keep the public names as anchors."""
    written = DIRECTIVE.sub(lambda match: _directive(match.group(1)), markdown)
    return LINK.sub(lambda match: f"][{place_of(match.group(1))}]", written)


def _directive(name: str) -> str:
    place = place_of(name)
    return f"::: {place}" if place == name else f'<a id="{name}"></a>\n\n::: {place}'
