"""Pages whose code is run: what each Python block prints and shows is put below it.

Blocks marked ```python are run in order, in one namespace for each page; blocks marked ```py are only shown. A page is
run once for a state of the code: results are kept in `build/docs`, so that the site is built from what the tests ran.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import outputs

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
KEPT = ROOT / "build" / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```[ \t]*$", flags=re.DOTALL | re.MULTILINE)


class PageError(Exception):
    """A block of a page did not run."""


def pages() -> list[Path]:
    """The pages that have code to run."""
    return [path for path in sorted(DOCS.rglob("*.md")) if code_of(path.read_text(encoding="utf-8"))]


def code_of(text: str) -> list[str]:
    """The blocks of a page that are run."""
    return BLOCK.findall(text)


def with_outputs(text: str, name: str) -> str:
    """The page with the output of every block below it."""
    shown = iter(run(code_of(text), name))

    def put(match: re.Match[str]) -> str:
        output = next(shown)
        return f"{match.group(0)}\n\n{output}\n" if output else match.group(0)

    return BLOCK.sub(put, text)


def run(blocks: list[str], name: str) -> list[str]:
    """What each block shows; from an earlier run of the same code with the same package, if there was one.

    Raises:
        PageError: a block failed; the message has the block and the traceback.
    """
    if not blocks:
        return []
    kept = KEPT / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{_key(blocks)}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # what a page saves belongs to no one
        try:
            shown = [_run_block(block, names, f"{name}, block {number}") for number, block in enumerate(blocks, 1)]
        finally:
            os.chdir(before)
    kept.parent.mkdir(parents=True, exist_ok=True)
    for old in kept.parent.glob(f"{kept.stem.rsplit('-', 1)[0]}-*.json"):
        old.unlink(missing_ok=True)
    kept.write_text(json.dumps(shown, ensure_ascii=False), encoding="utf-8")
    return shown


def _run_block(block: str, names: dict[str, Any], where: str) -> str:
    """The output of a block: what it prints, then the value of a last expression."""
    tree = ast.parse(block, filename=where)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(tree, where, "exec"), names)
            result = None
            if isinstance(last, ast.Expr):
                result = eval(compile(ast.Expression(last.value), where, "eval"), names)
    except Exception:
        raise PageError(f"{where} failed:\n\n{block}\n{traceback.format_exc(limit=-3)}") from None
    parts = (outputs.text_block(printed.getvalue()), outputs.value(result))
    return "\n\n".join(part for part in parts if part)


def _key(blocks: list[str]) -> str:
    """Short name of a state: the page's code, the package's, and the versions that numbers and pictures depend on."""
    digest = hashlib.sha256()
    for name in ("torch", "transformer-lens", "plotly"):
        digest.update(version(name).encode())
    digest.update(sys.version.split()[0].encode())
    for path in sorted((ROOT / "steerlens").rglob("*")):
        if path.suffix in (".py", ".json", ".safetensors"):
            digest.update(path.read_bytes())
    digest.update(json.dumps(blocks).encode())
    return digest.hexdigest()[:16]
