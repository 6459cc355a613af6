"""No page has a serious fault for those who use a keyboard or a screen reader: axe-core looks, light and dark."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from steerlens.explorer.models import Models
from steerlens.explorer.server import Server
from steerlens.explorer.widget import first_view
from tests.browser.browsing import installed, opened
from tests.explorer.serving import served

pytestmark = [pytest.mark.slow, pytest.mark.outside]


def faults(browser: Any, address: str, ready: str, scheme: str, width: int) -> list[str]:
    """What axe-core calls serious or critical, one line each."""
    installed("axe_playwright_python")
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None and spec.submodule_search_locations is not None
    axe = (Path(next(iter(spec.submodule_search_locations))) / "axe.min.js").read_text(encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = opened(context)
    page.goto(address)
    page.wait_for_selector(ready, state="attached")
    page.wait_for_selector(".steerlens-stale", state="detached")
    page.wait_for_timeout(500)
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(result => result.violations)")
    context.close()
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:140]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.fixture(scope="module")
def report(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    metric = sl.metrics.words("weddings")
    pair = sl.PromptPair(" weddings", " ")
    prompts = ["I went up to my friend", "She said"]
    sweep = sl.sweep(demo, pair, prompts, coeffs=[2, 4], layers=[2, 4], n=2, max_new_tokens=8, metrics=[metric])
    return sweep.report(tmp_path_factory.mktemp("axe") / "report.html", command="steerlens sweep")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
def test_a_report(browser: Any, report: Path, scheme: str, width: int) -> None:
    assert faults(browser, report.as_uri(), ".js-plotly-plot .main-svg", scheme, width) == []


def test_a_page_of_a_shift(browser: Any, demo: Any, tmp_path: Path) -> None:
    shift = sl.logit_shift(demo, ["I hate you", "I love you"], sl.actadd(demo, "Love", "Hate", layer=2))
    path = shift.report(tmp_path / "shift.html")
    assert faults(browser, path.as_uri(), ".js-plotly-plot .main-svg", "light", 1200) == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_the_explorer(browser: Any, demo: Any, scheme: str, width: int) -> None:
    installed("tornado")
    view, ends = first_view(demo, ("Love", "Hate"), "I hate you because", 2, 5.0, "front", "love, hate", (-9, 9), False)
    with served(Server(Models(demo), view, ends)) as server:
        shown = ".steerlens-figure .barlayer .point path"
        assert faults(browser, server.address, shown, scheme, width) == []
