"""What the tests in a browser share: patient pages, their errors and pictures, and what is drawn in them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 300  # seconds: nothing is said about speed, a busy machine may be slow; only a hang ends here
ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def installed(*modules: str) -> None:
    """Skip the test that lacks one of the modules."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; pip install {name.replace('.', '-')}")


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


def use_the_explorer(page: Any, name: str) -> None:
    """Move, type, err, sample and copy, as a user does, in an explorer that is open at layer 4, coefficient 5."""

    def chosen_layer(page: Any) -> list[str]:
        shapes = ".steerlens-figure .shapelayer path"
        return page.eval_on_selector_all(shapes, "paths => paths.map(path => path.getAttribute('d'))")

    page.wait_for_selector(".steerlens-figure .barlayer .point path", state="attached")
    page.wait_for_selector(".steerlens-figure .scatterlayer .trace path", state="attached")
    page.wait_for_selector(".steerlens-status:has-text('layer 4')")
    page.wait_for_timeout(1500)
    picture(page, name)
    drawn, marked = bars(page), chosen_layer(page)
    page.get_by_label("layer", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    took = until_changed(page, bars, drawn)
    print(f"from the key to the new bars: {took:.2f} s")
    page.wait_for_selector(".steerlens-status:has-text('layer 3')")
    until_changed(page, chosen_layer, marked)

    before = bars(page)
    page.get_by_label("coefficient", exact=True).focus()
    for _ in range(6):  # six moves in a row end in the one picture of the last
        page.keyboard.press("ArrowRight")
    until_changed(page, bars, before)
    page.wait_for_selector(".steerlens-status:has-text('8 ×')")

    page.locator(".sl-token").nth(2).focus()
    assert "→" in page.locator(".sl-token").nth(2).locator(".sl-tip").inner_text()
    prompt = page.get_by_label("prompt", exact=True)
    prompt.fill("")
    prompt.press("Enter")
    page.wait_for_selector(".steerlens-error:has-text('the prompt is empty')")
    picture(page, f"{name}-error")
    prompt.fill("This film <script>alert(1)</script> was")
    prompt.press("Enter")
    page.wait_for_selector(".steerlens-error:empty", state="attached")

    page.get_by_label("tokens", exact=True).fill("20")
    page.get_by_label("tokens", exact=True).press("Enter")
    page.get_by_role("button", name="Complete").click()
    page.wait_for_selector(".sl-streams small:has-text('surprise')")
    page.get_by_text("As code").click()
    page.wait_for_selector(".steerlens-code pre")
    page.wait_for_timeout(600)
    picture(page, f"{name}-completions")
    assert "8 * vectors[3]" in page.locator(".steerlens-code pre").inner_text()
    assert "<script>" in page.locator(".sl-streams caption").inner_text(), "markup in a prompt is shown, not run"
    overflow = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.steerlens-explorer'))")
    assert overflow <= 1, "the explorer is wider than its place"
