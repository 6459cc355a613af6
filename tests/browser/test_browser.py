"""In a real browser: the HTML report as a file, the explorer in a real JupyterLab.

Skipped where there is no Chromium, Playwright or JupyterLab (`pip install playwright jupyterlab`, and a chromium on the
path). Set STEERLENS_SCREENSHOTS to a folder to keep pictures.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
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

pytestmark = [pytest.mark.slow, pytest.mark.outside]

PATIENCE = 300  # seconds: nothing is said about speed, a busy machine may be slow; only a hang ends here
ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def installed(*modules: str) -> None:
    """Skip the test that lacks one of the modules."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; pip install {name.replace('.', '-')}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    installed("playwright")
    if BROWSER is None:
        pytest.skip("there is no Chromium on the path; install one to run the tests in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


def opened(browser: Any, **settings: Any) -> Any:
    """A new page that waits for what it is asked for as long as a busy machine needs."""
    page = browser.new_page(**settings)
    page.set_default_timeout(PATIENCE * 1000)
    return page


class Errors(list[str]):
    """What a page complained about: console errors and uncaught exceptions."""

    def watch(self, page: Any) -> None:
        page.on("console", lambda message: message.type == "error" and self.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.append(f"exception: {error}"))


def picture(page: Any, name: str) -> None:
    if folder := os.environ.get("STEERLENS_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


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


def bars(page: Any) -> list[str]:
    """The shapes of the bars, as drawn."""
    return page.eval_on_selector_all(
        ".steerlens-figure .barlayer .point path", "paths => paths.map(path => path.getAttribute('d'))"
    )


def until_changed(page: Any, read: Any, before: Any, seconds: float = PATIENCE) -> float:
    """Seconds until `read(page)` is something else, and not empty."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        now = read(page)
        if now and now != before:
            return time.perf_counter() - begin
        page.wait_for_timeout(10)
    pytest.fail(f"nothing changed within {seconds:.0f} s")


def test_the_explorer_in_jupyterlab(browser: Any, lab: str) -> None:
    page, errors = opened(browser, viewport={"width": 1440, "height": 1250}), Errors()
    errors.watch(page)
    page.goto(f"{lab}/doc/tree/explorer.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    run_the_cell(page)
    page.wait_for_selector(".steerlens-figure .barlayer .point path", state="attached")
    page.wait_for_selector(".steerlens-figure .scatterlayer .trace path", state="attached")
    page.wait_for_timeout(1500)
    picture(page, "explorer")

    def status(page: Any) -> str:
        return page.locator(".steerlens-status").first.inner_text()

    def chosen_layer(page: Any) -> list[str]:
        shapes = ".steerlens-figure .shapelayer path"
        return page.eval_on_selector_all(shapes, "paths => paths.map(path => path.getAttribute('d'))")

    assert "layer 4" in status(page)
    drawn, marked = bars(page), chosen_layer(page)
    page.locator(".widget-slider .noUi-handle").nth(0).focus()
    page.keyboard.press("ArrowLeft")
    took = until_changed(page, bars, drawn)
    print(f"from the key to the new bars: {took:.2f} s")
    assert "layer 3" in status(page)
    until_changed(page, chosen_layer, marked)

    before = bars(page)
    page.locator(".widget-slider .noUi-handle").nth(1).focus()
    for _ in range(6):  # six moves in a row end in the one picture of the last
        page.keyboard.press("ArrowRight")
    until_changed(page, bars, before)
    page.wait_for_function("document.querySelector('.steerlens-status').innerText.includes('8 ×')")

    prompt = page.locator(".widget-text input[type=text]").nth(2)
    prompt.fill("")
    prompt.press("Enter")
    page.wait_for_selector(".steerlens-error")
    picture(page, "explorer-error")
    assert "the prompt is empty" in page.locator(".steerlens-error").inner_text()
    prompt.fill("This film <script>alert(1)</script> was")
    prompt.press("Enter")
    page.wait_for_selector(".steerlens-error", state="detached")

    page.get_by_role("button", name="Complete").click()
    page.wait_for_selector(".sl-sides td")
    page.get_by_text("As code").click()
    page.wait_for_selector(".steerlens-code pre")
    page.wait_for_timeout(600)
    picture(page, "explorer-completions")
    assert "8 * vectors[3]" in page.locator(".steerlens-code pre").inner_text()
    assert "<script>" in page.locator(".sl-sides caption").first.inner_text(), "markup in a prompt is shown, not run"
    overflow = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.steerlens-explorer'))")
    page.close()
    assert overflow <= 1, "the widget is wider than its cell"
    assert errors == []
