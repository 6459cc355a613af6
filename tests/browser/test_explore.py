"""`steerlens explore` in a real browser: used as in Jupyter, by keyboard, restored by its address, ended by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.browsing import PATIENCE, ROOT, Errors, installed, opened, picture, use_the_explorer

pytestmark = [pytest.mark.slow, pytest.mark.outside]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """The process of `steerlens explore` on the embedded model, and the address that it printed."""
    installed("tornado")
    folder = tmp_path_factory.mktemp("explore")
    command = [sys.executable, "-m", "steerlens.cli", "explore", "Love", "Hate", "--coeff", "5", "--no-browser"]
    command += ["--prompt", "I hate you because", "--words", "love, hate"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever the shell of the tests ignores
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("open http://127.0.0.1:"), (folder / "log").read_text()
            yield process, line.split()[1]
        finally:
            process.kill()
            process.wait(PATIENCE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_used_as_in_jupyter(browser: Any, running: tuple[Any, str], scheme: str) -> None:
    page, errors = opened(browser, viewport={"width": 1440, "height": 1250}, color_scheme=scheme), Errors()
    errors.watch(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(running[1])
    use_the_explorer(page, f"explore-{scheme}")
    page.close()
    assert errors == []
    here = running[1].partition("/?")[0]
    assert all(url.startswith((here, "data:", "blob:")) for url in asked), "nothing comes from elsewhere"


def test_the_address_restores_what_was_set(browser: Any, running: tuple[Any, str]) -> None:
    page = opened(browser)
    page.goto(running[1])
    page.wait_for_selector(".steerlens-status:has-text('layer 4')")
    page.get_by_label("towards").fill(" weddings")
    page.get_by_label("towards").press("Enter")
    page.get_by_label("next words to follow").fill("wedding")
    page.get_by_label("next words to follow").press("Enter")
    page.get_by_label("placed at").select_option("back")
    page.get_by_label("layer", exact=True).focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".steerlens-status:has-text('layer 0, placed at back')")
    status = page.locator(".steerlens-status").inner_text().rpartition(" · ")[0]  # the time apart
    link = page.url
    other = opened(browser)
    other.goto(link)
    other.wait_for_selector(".steerlens-status:has-text('layer 0, placed at back')")
    other.wait_for_selector(".steerlens-stale", state="detached")
    assert other.locator(".steerlens-status").inner_text().rpartition(" · ")[0] == status
    assert other.get_by_label("towards").input_value() == " weddings"
    picture(other, "explore-restored")
    other.goto(f"{running[1]}#{quote(json.dumps({'layer': '<b>', 'prompt': 3, 'model': '/etc/passwd'}))}")
    other.reload()
    other.wait_for_selector(".steerlens-error:not(:empty)")
    page.close()
    other.close()


def test_sampling_is_stopped_and_the_phone_shows_it_all(browser: Any, running: tuple[Any, str]) -> None:
    page = opened(browser, viewport={"width": 390, "height": 844})
    page.goto(running[1])
    page.wait_for_selector(".steerlens-figure .barlayer .point path", state="attached")
    page.get_by_label("samples").fill("20")
    page.get_by_label("samples").press("Enter")
    page.get_by_label("tokens", exact=True).fill("120")
    page.get_by_label("tokens", exact=True).press("Enter")
    page.get_by_role("button", name="Complete").click()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".sl-streams small:has-text('stopped')")
    page.wait_for_selector(".sl-go:visible")
    page.wait_for_selector(".steerlens-stale", state="detached")
    picture(page, "explore-phone")
    sideways = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    page.close()
    assert not sideways, "the page must not scroll sideways"


def test_ctrl_c_ends_it_and_the_page_says_so(browser: Any, running: tuple[Any, str], tmp_path: Path) -> None:
    page = opened(browser)
    page.goto(running[1])
    page.wait_for_selector(".steerlens-status:has-text('layer')")
    running[0].send_signal(signal.SIGINT)
    assert running[0].wait(PATIENCE) == 0
    page.wait_for_selector("#connection:has-text('is gone')")
    page.close()
