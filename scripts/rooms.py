"""The rooms of the package and which other rooms each imports: `python scripts/rooms.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ORDER = "demo models steering engine measures figures reports analysis runs experiments explorer providers cli".split()


@dataclass(frozen=True)
class Import:
    """One name that a module imports: `target` is a dotted module, or a module and a name in it."""

    source: str
    target: str
    line: int
    runtime: bool  # False under `if TYPE_CHECKING:`
    inside: bool  # within a function, or for types only: not run when the module is imported


def modules(root: Path) -> dict[str, Path]:
    """Return the files of the package `root/steerlens` by dotted module name."""
    found = {}
    for path in sorted((root / "steerlens").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> Iterator[Import]:
    """Yield what a module imports, inside functions too, relative imports written out."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]

    def walk(node: ast.AST, runtime: bool, inside: bool = False) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, runtime, inside)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(name, f"{base}.{alias.name}", node.lineno, runtime, inside)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for child in node.body:
                yield from walk(child, False, True)
            for child in node.orelse:
                yield from walk(child, runtime, inside)
        else:
            inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for child in ast.iter_child_nodes(node):  # type: ignore[assignment]
                yield from walk(child, runtime, inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


def room(dotted: str) -> str:
    """Return the room of a module of the package: its second part, "" for the package itself."""
    return [*dotted.split("."), ""][1]


def is_ours(dotted: str) -> bool:
    return dotted.split(".")[0] == "steerlens"


def import_lines(root: Path) -> list[str]:
    """Return a line for each room, the ground first: the rooms it imports, and those it imports lazily.

    Lazily is: inside functions only, so that it costs nothing until a figure or a page is asked for.
    """
    known = modules(root)
    now: dict[str, set[str]] = {name: set() for name in ORDER}
    later: dict[str, set[str]] = {name: set() for name in ORDER}
    for name, path in known.items():
        here = room(name)
        for found in imports(name, path) if here in now else ():
            there = room(found.target) if is_ours(found.target) else ""
            if there in now and there != here:
                (later if found.inside or name.endswith("_page") else now)[here].add(there)
    lines = []
    for here in ORDER:
        told = ", ".join(one for one in ORDER if one in now[here]) or "–"
        lazy = ", ".join(one for one in ORDER if one in later[here] - now[here])
        lines.append(f"{here:<12}→ {told}" + (f"; lazily {lazy}" if lazy else ""))
    return lines


if __name__ == "__main__":
    print(*import_lines(Path(__file__).resolve().parents[1]), sep="\n")
