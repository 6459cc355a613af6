"""`browser`: a Chromium, or a reason to skip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.browsing import BROWSER, installed


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
