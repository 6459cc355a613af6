"""Every notebook runs from top to bottom on the embedded model, the solutions of its exercises too."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HAS_HOOKED_TRANSFORMER

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAKE_SMOLLM2 = [path for path in NOTEBOOKS if "is_there()" in path.read_text(encoding="utf-8")]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def solutions(notebook: dict[str, Any]) -> list[str]:
    """The Python blocks of folded solutions, in order."""
    folded = [
        source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown" and "<details>" in source(cell)
    ]
    return [block for text in folded for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)]


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 5


@each_notebook
def test_it_is_committed_without_outputs(path: Path) -> None:
    notebook = read(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], f"{path.name} holds outputs; clear them before committing"
            assert cell["execution_count"] is None
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]


@each_notebook
def test_the_model_is_named_once(path: Path) -> None:
    code = [source(cell) for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    assert code[0].startswith('MODEL = "demo"')
    named = [line for cell in code for line in cell.splitlines() if '"demo"' in line]
    assert named == [code[0].splitlines()[0]], "gpt2-xl must work by changing one line"


@each_notebook
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(source(cell) for cell in read(path)["cells"])
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).is_file(), target


@pytest.mark.slow
@each_notebook
def test_it_runs(path: Path, tmp_path: Path) -> None:
    run(path, tmp_path, {"STEERLENS_CACHE": str(tmp_path / "cache")})  # where no SmolLM2 is


if HAS_HOOKED_TRANSFORMER:  # once is enough: what differs between TransformerLenses is seen on the embedded model

    @pytest.mark.real
    @pytest.mark.parametrize("path", TAKE_SMOLLM2, ids=lambda path: path.stem)
    def test_it_runs_on_a_real_model(path: Path, tmp_path: Path) -> None:
        # That one word at the front is too long a vector there is said, rightly.
        run(path, tmp_path, {}, may_warn="times as long as the residual stream")


def run(path: Path, folder: Path, environment: dict[str, str], *, may_warn: str = "\0") -> None:
    """Execute a notebook and the solutions of its exercises; keep it, as it ran, where that is asked for."""
    for name in ("nbclient", "nbformat", "ipykernel", "ipywidgets", "anywidget"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is not installed; pip install "steerlens[dev]"')
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    own = len(notebook.cells)
    for block in solutions(read(path)):
        notebook.cells.append(nbformat.v4.new_code_cell(block))
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    begin = time.perf_counter()
    try:
        client.execute(env={**os.environ, **environment, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"})
    except CellExecutionError as error:
        pytest.fail(f"{path.name}: {error}", pytrace=False)
    print(f"{path.stem}: {time.perf_counter() - begin:.0f} s")
    # What a cell says about errors is checked above; warnings in front of a class are a blemish too.
    said = [
        output["text"]
        for cell in notebook.cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
        if output["output_type"] == "stream" and output["name"] == "stderr"
    ]
    assert [text for text in said if "Warning" in text and may_warn not in text] == []
    if kept := os.environ.get("STEERLENS_NOTEBOOK_OUTPUT"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        notebook.cells = notebook.cells[:own]  # the solutions are on the page, folded
        nbformat.write(notebook, Path(kept) / path.name)
