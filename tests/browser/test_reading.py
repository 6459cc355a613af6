"""Reading a report in a real browser: all completions, sorted tables, files to take away, on a phone and on paper."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import steerlens as sl
from steerlens.measures.metrics import words
from steerlens.reports.all_completions import AllCompletions
from steerlens.reports.page import Page
from steerlens.reports.writing import write_page
from tests.browser.browsing import Errors, opened, picture

pytestmark = [pytest.mark.slow, pytest.mark.outside]

HOSTILE = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"
DRAWN = "document.querySelectorAll('figure .tools').length === document.querySelectorAll('figure').length"
METRICS = [words("weddings"), sl.metrics.repetition()]


def completions(n: int = 30, layers: int = 3) -> pd.DataFrame:
    """What a sweep gives: the unsteered model and layers, two prompts, hostile texts among the completions."""
    rows = []
    for condition in range(layers + 1):
        for prompt in ("She said", f"He said {HOSTILE}"):
            for sample in range(n):
                hit = sample % (condition + 2) == 0 and [f' a wedding, "{sample}"\r\n', "😀 the bride, the groom"]
                rest = [f"=1+1, {HOSTILE}", "dull, ", ""]
                text = (hit or rest)[sample // (condition + 2) % len(hit or rest)]
                rows.append((condition, "v" if condition else "unsteered", prompt, sample, text))
    frame = pd.DataFrame(rows, columns=["condition", "label", "prompt", "sample", "completion"])
    frame["role"] = np.where(frame["condition"] > 0, "steered", "unsteered")
    frame["layer"] = frame["condition"].sub(1).astype("Int64").where(frame["condition"] > 0)
    frame["coeff"] = frame["condition"].gt(0).astype(float) * 4
    frame["placement"] = np.where(frame["condition"] > 0, "front", "")
    frame["finished"], frame["n_tokens"], frame["seed"] = frame["sample"] % 3 == 0, 8, 2**60 + 1
    frame["surprise"] = [1 + 0.37 * (31 * row % 17) for row in range(len(frame))]
    frame.loc[::7, "surprise"] = float("nan")
    for metric in METRICS:
        frame[metric.column] = metric(frame["completion"])
    return frame


def swept(frame: pd.DataFrame) -> sl.Sweep:
    return sl.Sweep(frame, tuple(METRICS), {"what": HOSTILE, "model": "m", "n": 30})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return swept(completions()).report(tmp_path_factory.mktemp("reading") / "report.html")


@pytest.fixture
def page(browser: Any, report: Path) -> Any:
    settings = {"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce", "accept_downloads": True}
    page, errors = opened(browser, **settings), Errors()
    errors.watch(page)
    page.goto(report.as_uri())
    page.wait_for_selector("#every tbody tr")
    page.wait_for_function(DRAWN)
    yield page
    taken, images = page.evaluate("[window.taken, document.images.length]")
    page.close()
    assert errors == []
    assert taken is None, "a completion was run"
    assert images == 0, "a completion became markup"


def cells(page: Any, kind: str) -> list[str]:
    return page.locator(f"#every tbody td.{kind}").all_text_contents()


def shown(page: Any, place: int, table: str = "#table-0") -> list[str]:
    return page.locator(f"{table} tbody tr td:nth-child({place})").all_text_contents()


def test_every_completion_of_every_condition_can_be_read(page: Any) -> None:
    frame = completions()
    names = page.locator("#every select").first.locator("option").all_text_contents()
    assert names == ["unsteered", "v, layer 0", "v, layer 1", "v, layer 2"]
    for condition, name in enumerate(names):
        page.get_by_label("Condition", exact=True).select_option(label=name)
        while page.get_by_role("button", name="Show more").is_visible():
            page.get_by_role("button", name="Show more").click()
        wanted = frame.loc[frame["condition"] == condition, "completion"]
        read = [text.replace("\r\n", "\n") for text in cells(page, "text")]
        assert read == [text.lstrip().replace("\r\n", "\n") for text in wanted]
    marked = page.locator("#every mark").all_text_contents()
    spans = [text[a:b] for text in wanted for a, b in METRICS[0].spans(text)]
    assert marked == spans
    picture(page, "reading")


def test_completions_are_chosen_by_prompt_and_hits_and_sorted(page: Any) -> None:
    page.get_by_label("Show", exact=True).select_option(label="without weddings")
    page.get_by_label("Prompt", exact=True).select_option(label="She said")
    assert set(cells(page, "text")) == {f"=1+1, {HOSTILE}", "dull, ", ""}
    assert page.locator("#every mark").count() == 0
    left = completions().query("condition == 1 and prompt == 'She said' and weddings == 0")
    assert f"{len(left)} completions" in page.locator("#every [role=status]").inner_text()
    head = page.locator("#every th", has_text="surprise")
    head.get_by_role("button").focus()
    for order, expected in (("Enter", "ascending"), ("Space", "descending")):
        page.keyboard.press(order)
        assert head.get_attribute("aria-sort") == expected
        values = [float(one) for one in page.locator("#every tbody td:nth-child(4)").all_text_contents() if one != "–"]
        assert values == sorted(values, reverse=expected == "descending")
        assert len(values) > 5


def test_a_point_a_cell_and_a_row_lead_to_their_completions(page: Any) -> None:
    chosen = page.locator("#every h3")
    for number, name in ((2, "v, layer 1"), (0, "unsteered")):
        found = page.evaluate(
            """(number) => {
              for (const plot of document.querySelectorAll('.js-plotly-plot')) {
                const curve = plot.data.findIndex((one) => one.customdata?.includes(number));
                if (curve < 0) continue;
                const place = plot.data[curve].customdata.indexOf(number), axes = plot._fullLayout;
                plot.scrollIntoView();
                const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
                const point = plot.calcdata[curve][place];
                return [box.x + axes.xaxis.l2p(point.x), box.y + axes.yaxis.l2p(point.y)];
              }
            }""",
            number,
        )
        page.mouse.move(*found)
        page.wait_for_selector(".hoverlayer .hovertext")
        page.mouse.click(*found)
        page.wait_for_function("name => document.querySelector('#every h3').textContent === name", arg=name)
        assert page.evaluate("document.activeElement.tagName") == "H3"
        assert page.url.endswith(f"#condition={number}")
    page.get_by_role("button", name="completions of v, layer 2").focus()
    page.keyboard.press("Enter")
    assert chosen.inner_text() == "v, layer 2"
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("#every h3:has-text('v, layer 2')")


def test_tables_are_sorted_by_their_full_values_and_saved(page: Any) -> None:
    place = page.locator("#table-0 th").all_text_contents().index("mean") + 1
    head = page.locator("#table-0 th", has_text="mean")
    head.get_by_role("button").click()
    up = shown(page, place)
    head.get_by_role("button").click()
    assert up == sorted(up, key=float)
    assert shown(page, place) == sorted(up, key=float, reverse=True)
    with page.expect_download() as started:
        page.get_by_role("button", name="Save the table “Every condition” as CSV").click()
    table = pd.read_csv(started.value.path())
    summary = swept(completions()).summary.query("metric == 'weddings'")
    np.testing.assert_array_equal(table["high"], summary["high"])


def test_the_whole_frame_is_saved_as_pandas_would(page: Any) -> None:
    with page.expect_download() as started:
        page.get_by_role("button", name="CSV of all 240").click()
    assert started.value.suggested_filename.endswith("completions.csv")
    taken = Path(started.value.path()).read_bytes().decode("utf-8")
    wanted = completions().to_csv(index=False)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(taken)), pd.read_csv(io.StringIO(wanted)))


def test_a_figure_is_saved_as_a_picture(page: Any) -> None:
    with page.expect_download() as started:
        page.get_by_role("button", name="PNG").first.click()
    assert Path(started.value.path()).read_bytes().startswith(b"\x89PNG")


def test_twenty_thousand_completions_stay_a_short_page(browser: Any, tmp_path: Path) -> None:
    many = completions(n=1000, layers=9)
    page = opened(browser)
    page.goto(swept(many).report(tmp_path / "many.html").as_uri())
    page.wait_for_selector("#every tbody tr")
    page.get_by_label("Condition", exact=True).select_option(label="v, layer 8")
    assert page.locator("#every tbody tr").count() == 10
    assert "2000 completions" in page.locator("#every [role=status]").inner_text()
    assert page.evaluate("document.querySelectorAll('*').length") < 5000
    page.close()


def test_on_a_phone_figures_have_room_and_wide_tables_a_shadow(browser: Any, report: Path) -> None:
    page = opened(browser, viewport={"width": 390, "height": 844})
    page.goto(report.as_uri())
    page.wait_for_selector("#every tbody tr")
    page.wait_for_function(DRAWN)
    for plot in page.locator(".js-plotly-plot").all():
        box = plot.locator(".nsewdrag").first.bounding_box()
        assert box["width"] > 190
        assert box["height"] > 100
        outer = plot.bounding_box()
        for part in plot.locator(".legend, .colorbar").all():
            inner = part.bounding_box()
            assert inner["y"] >= box["y"] + box["height"], "the legend stands below the plot"
            assert inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    table = page.locator(".sideways", has=page.locator("#table-0"))
    seen = "(box) => [getComputedStyle(box, '::before').opacity, getComputedStyle(box, '::after').opacity]"
    assert table.evaluate("(box) => box.className") == "sideways more-right"
    table.locator(".table").evaluate("(inner) => inner.scrollTo(9999, 0)")
    page.wait_for_timeout(500)
    assert table.evaluate(seen) == ["1", "0"]
    picture(page, "reading-phone")
    page.close()


def test_long_names_leave_room_for_the_plot_on_a_phone(browser: Any, tmp_path: Path) -> None:
    names = [f"talk of {what}, huge coefficient (failed in the post)" for what in ("weddings", "anger", "geese")]
    bars = go.Figure(go.Bar(x=[1, 2, 3], y=names, orientation="h"))
    ticks = go.Figure(go.Scatter(x=[1, 2, 3], y=[0, 1, 2]), {"yaxis": {"tickvals": [0, 1, 2], "ticktext": names}})
    for figure in (bars, ticks):
        figure.update_yaxes(automargin=True)
    path = write_page(tmp_path / "names.html", Page(title="names", figures={"bars": bars, "ticks": ticks}))
    page = opened(browser, viewport={"width": 390, "height": 844})
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    for plot in page.locator(".js-plotly-plot").all():
        assert plot.locator(".nsewdrag").first.bounding_box()["width"] > 150
        shown = plot.locator(".ytick text").all()
        assert ["".join(one.text_content().split()) for one in shown] == [name.replace(" ", "") for name in names]
    page.close()


def test_on_paper_there_are_no_controls(browser: Any, report: Path) -> None:
    page = opened(browser)
    page.goto(report.as_uri())
    page.wait_for_selector("#every tbody tr")
    page.emulate_media(media="print")
    assert not page.locator("#every").is_visible(), "what nobody chose to read is not printed"
    page.emulate_media(media="screen")
    page.get_by_label("Condition", exact=True).select_option(label="v, layer 1")
    page.emulate_media(media="print")
    assert page.locator("#every h3").is_visible()
    for control in ("#every select", "#every .choices button", ".tools button"):
        assert not page.locator(control).first.is_visible()
    page.close()


def test_pages_that_share_a_library_open_from_files(browser: Any, tmp_path: Path) -> None:
    figure = swept(completions()).plot()
    path = write_page(tmp_path / "one.html", Page(title="one", figures={"": figure}), library="beside")
    page, errors = opened(browser), Errors()
    errors.watch(page)
    page.goto(path.as_uri())
    page.wait_for_selector(".js-plotly-plot .scatterlayer .trace path", state="attached")
    assert errors == []
    (tmp_path / "plotly.min.js").unlink()
    page.goto(path.as_uri())
    page.wait_for_selector(".plot:has-text('plotly.min.js is not beside this page')")
    page.close()


def test_a_browser_that_cannot_unpack_says_so_and_shows_the_numbers(browser: Any, report: Path) -> None:
    page = opened(browser)
    page.add_init_script("delete window.DecompressionStream")
    page.goto(report.as_uri())
    page.wait_for_selector(".plot:has-text('This browser is too old')")
    page.wait_for_selector("#every:has-text('This browser is too old')")
    assert page.locator("#table-0 th button").count() > 5
    page.close()


def test_a_page_without_figures_is_read_too(browser: Any, tmp_path: Path) -> None:
    every = AllCompletions(frame=completions(n=2), metric=None)
    page, errors = opened(browser), Errors()
    errors.watch(page)
    page.goto(write_page(tmp_path / "bare.html", Page(title="bare", every=every)).as_uri())
    page.wait_for_selector("#every tbody tr")
    assert len(cells(page, "text")) == 4
    page.close()
    assert errors == []
