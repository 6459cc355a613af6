"""In a real browser: the HTML report as a file, the explorer in a real JupyterLab.

Skipped where there is no Chromium, Playwright or JupyterLab (`pip install playwright jupyterlab`, and a chromium on the
path). Set STEERLENS_SCREENSHOTS to a folder to keep pictures.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from tests.browser.browsing import PATIENCE, ROOT, Errors, installed, opened, picture, use_the_explorer

pytestmark = [pytest.mark.slow, pytest.mark.outside]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_opens_from_a_file(browser: Any, demo: Any, tmp_path: Path, scheme: str) -> None:
    pair = sl.PromptPair(" weddings", " ")
    metric = sl.metrics.words("weddings")
    sweep = sl.sweep(demo, pair, "I went up to my friend", coeffs=[4], n=2, max_new_tokens=8, metrics=[metric])
    path = sweep.report(tmp_path / "report.html")
    page, errors = opened(browser, viewport={"width": 1200, "height": 900}, color_scheme=scheme), Errors()
    errors.watch(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg .scatterlayer .trace path", state="attached")
    picture(page, f"report-{scheme}")
    title = page.locator(".js-plotly-plot .gtitle").first.text_content()
    width = page.locator(".js-plotly-plot .main-svg").first.bounding_box()["width"]
    sideways = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    page.close()
    assert errors == []
    assert "weddings" in title
    assert width > 600
    assert not sideways, "the page must not scroll sideways"
    assert [url for url in asked if url.startswith("http")] == []


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that serves one notebook with the explorer."""
    installed("jupyterlab", "ipykernel", "ipywidgets", "anywidget")
    import nbformat

    folder = tmp_path_factory.mktemp("lab")
    code = 'import steerlens as sl\n\nexplorer = sl.explore(sl.load_model("demo", device="cpu"))\nexplorer'
    cells = [nbformat.v4.new_code_cell(code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "explorer.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Nothing of the user's own Jupyter may come in: settings, extensions, or a kernel of another environment.
    here = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    options = ["--no-browser", f"--port={port}", "--ip=127.0.0.1", "--allow-root", "--IdentityProvider.token="]
    log = (folder / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"],
        env={**os.environ, **here},
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(2 * PATIENCE):
            if server.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail("JupyterLab did not start:\n" + (folder / "lab.log").read_text()[-2000:])
        if server.poll() is not None:
            pytest.fail("JupyterLab ended at once:\n" + (folder / "lab.log").read_text()[-2000:])
        yield address
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)
        log.close()


def run_the_cell(page: Any) -> None:
    """Run the notebook's one cell, as soon as JupyterLab takes it (before the kernel is there it does nothing)."""
    for _ in range(PATIENCE):
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(1500)
        if re.search(r"[*\d]", page.locator(".jp-CodeCell .jp-InputPrompt").first.inner_text()):
            return
    pytest.fail("JupyterLab did not run the cell")


def test_the_explorer_in_jupyterlab(browser: Any, lab: str) -> None:
    page, errors = opened(browser, viewport={"width": 1440, "height": 1250}), Errors()
    errors.watch(page)
    page.goto(f"{lab}/doc/tree/explorer.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    run_the_cell(page)
    use_the_explorer(page, "explorer")
    page.close()
    assert errors == []
