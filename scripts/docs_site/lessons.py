"""Notebooks as pages: executed copies, with what their cells printed and drew.

Copies come from the notebooks' own tests (STEERLENS_NOTEBOOK_OUTPUT=build/notebooks); one that is missing or older than
its notebook is executed here.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from . import outputs
from .pages import ROOT

NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "build" / "notebooks"
REPOSITORY = "https://github.com/steerlens/steerlens"


def notebooks() -> list[Path]:
    """All lessons, in order."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def as_page(path: Path, *, run: bool = True) -> str:
    """The Markdown page of a notebook, with what it showed when it ran."""
    notebook = json.loads((executed(path) if run else path).read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(_linked(source))
        elif cell["cell_type"] == "code" and source:
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    text = "\n\n".join(part for part in parts if part)
    note = f"*This page is [the notebook]({REPOSITORY}/blob/main/notebooks/{path.name}), as it ran.*"
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{note}\n{rest}\n"


def executed(path: Path) -> Path:
    """The executed copy of a notebook."""
    copy = EXECUTED / path.name
    if not copy.is_file() or copy.stat().st_mtime < path.stat().st_mtime:
        _execute(path, copy)
    return copy


def _execute(path: Path, copy: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    work = EXECUTED / "work"
    work.mkdir(exist_ok=True)
    client = NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(work)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    nbformat.write(notebook, copy)


def _output(output: dict[str, Any]) -> str:
    """What a cell printed or showed."""
    if output["output_type"] == "stream":
        return outputs.text_block("".join(output["text"])) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "application/vnd.plotly.v1+json" in data:
        return outputs.figure(data["application/vnd.plotly.v1+json"])
    if "application/vnd.jupyter.widget-view+json" in data:
        return "!!! note\n    Here the notebook shows the explorer, which needs a running Python."
    if "text/html" in data:
        written = "".join(data["text/html"])
        if 'class="dataframe"' in written:
            return f'<div class="sl-table">{outputs.one_line(_frame(written))}</div>'
        return f'<div class="sl-own">{outputs.one_line(written)}</div>'
    return outputs.text_block("".join(data.get("text/plain", "")))


def _frame(written: str) -> str:
    """A pandas table as the site's other tables look: without its own style and lines, numbers to three digits."""
    written = re.sub(r"<style.*?</style>", "", written, flags=re.DOTALL)
    written = written.replace('border="1" class="dataframe"', 'class="sl-frame"')
    return re.sub(
        r"<td>(-?\d+\.\d{3,}(?:e[-+]\d+)?)</td>", lambda cell: f"<td>{float(cell.group(1)):.3g}</td>", written
    )


def _formula(written: str) -> str:
    """A formula of a notebook as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    return f'<div class="sl-formula">{outputs.one_line(convert(written.strip(), display="block"))}</div>'


def _linked(source: str) -> str:
    """Markdown of a cell with links that work on the site: to other lessons, and to files of the repository."""

    def page(match: re.Match[str]) -> str:
        target = match.group(1)
        if target.startswith(("http", "#")):
            return match.group(0)
        if target.endswith(".ipynb"):
            return f"]({target.removesuffix('.ipynb')}.md)"
        return f"]({REPOSITORY}/blob/main/{os.path.normpath(f'notebooks/{target}')})"

    source = re.sub(r"\]\(([^)\s]+)\)", page, source)
    source = re.sub(r"\$\$(.+?)\$\$", lambda match: _formula(match.group(1)), source, flags=re.DOTALL)
    return re.sub(r"<details>", '<details markdown="1">', source)
