"""A page is one self-contained HTML file with every user's text escaped."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from steerlens.figures import completions_side_by_side
from steerlens.measures.metrics import words
from steerlens.reports.all_completions import AllCompletions
from steerlens.reports.html import page_html
from steerlens.reports.page import Completions, Headline, Page
from steerlens.reports.writing import write_page

NASTY = "</script><script>document.title='taken over'</script><img src=x onerror=alert(1)>"


class Read(HTMLParser):
    """The tags and attributes of a page, the text of its scripts, and the text people read."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.words, self._in_script = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        if tag == "script":
            self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        else:
            self.words.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def figure(text="a"):
    return go.Figure(go.Scatter(x=[1, 2], y=[3, 4], hovertext=[text, text]), layout={"height": 300})


def content(text):
    """A page with every part, `text` in each."""
    frame = pd.DataFrame(
        {"label": ["unsteered", text], "prompt": text, "sample": 0, "completion": [f"{text} wedding", text]}
        | {"layer": [None, 3], "coeff": [0.0, 1.0]}
    )
    sides = completions_side_by_side(frame, words("weddings"))
    return Page(
        title=f"Weddings {text}",
        subtitle=text,
        headlines=[Headline(text, text, text)],
        links={text: f"{text[:6]}.html"},
        figures={f"one {text}": figure(text), "": figure()},
        tables={text: pd.DataFrame({text: [text, None], "mean": [0.123456, float("nan")], "n": [200, 3]})},
        completions=[Completions(sides, heading=text, lines=(text,), folded=sides, folded_title=text)],
        every=AllCompletions(frame=frame.assign(condition=[0, 1]), metric=words("weddings"), names={1: text}),
        settings={text: text, "seed": 0, "coeffs": [1.0, 4.0], "top_k": None, "finished": True},
        command=f"steerlens sweep --prompt '{text}'",
    )


def test_the_page_needs_nothing_from_outside(tmp_path):
    path = write_page(tmp_path / "report.html", content("quiet text"))
    page = Read(path.read_text(encoding="utf-8"))
    assert all("src" not in attrs for attrs in page.named("script"))
    assert not page.named("link")
    assert not page.named("img")
    assert not page.named("iframe")
    assert not [
        attrs for _, attrs in page.tags if re.match(r"(https?:)?//", attrs.get("href") or attrs.get("src") or "")
    ]
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_plotly_is_inlined_once_compressed_and_not_at_all_without_a_figure():
    page = Read(page_html(content("x")))
    [library] = [text for attrs, text in page.scripts if attrs.get("id") == "plotly-library"]
    assert gzip.decompress(base64.b64decode(library)).decode() == get_plotlyjs()
    assert sum(len(text) for _, text in page.scripts) < len(library) + 40_000
    assert len(library) < len(get_plotlyjs()) / 2
    assert len(page_html(Page(title="t", settings={"a": 1}))) < 40_000


def test_pages_of_a_folder_share_one_plotly(tmp_path):
    paths = [write_page(tmp_path / f"{name}.html", content(name), library="beside") for name in ("one", "two")]
    assert (tmp_path / "plotly.min.js").read_text(encoding="utf-8") == get_plotlyjs()
    for path in paths:
        assert path.stat().st_size < 100_000
        page = Read(path.read_text(encoding="utf-8"))
        assert [attrs["src"] for attrs in page.named("script") if "src" in attrs] == ["plotly.min.js"]
    before = (tmp_path / "plotly.min.js").stat()
    write_page(paths[0], content("one"), library="beside")
    assert (tmp_path / "plotly.min.js").stat().st_mtime_ns == before.st_mtime_ns
    (tmp_path / "plotly.min.js").write_text("of another version")
    write_page(paths[0], content("one"), library="beside")
    assert (tmp_path / "plotly.min.js").stat().st_size == before.st_size
    (tmp_path / "apart").mkdir()
    write_page(tmp_path / "apart" / "a.html", Page(title="no figure"), library="beside")
    assert not (tmp_path / "apart" / "plotly.min.js").exists()


def test_text_of_users_appears_as_text_everywhere():
    source = page_html(content(NASTY))
    page = Read(source)
    assert not page.named("img")
    assert "taken over" not in "".join(text for attrs, text in page.scripts if attrs.get("type") != "application/json")
    kinds = [set(attrs) - {"type"} or None for attrs, _ in page.scripts]
    named = ["data-figure", "data-figure", "data-completions", "data-table", "id", "id"]
    assert kinds == [*({name} for name in named), None]
    assert NASTY not in "".join(text for _, text in page.scripts)
    shown = "".join(page.words)
    assert shown.count(NASTY) >= 12
    assert next(a["aria-label"] for a in page.named("div") if a.get("id") == "figure-0") == f"one {NASTY}"


def test_figures_come_through_unchanged():
    page = Read(page_html(Page(title="t", figures={"": figure("a < b & c")})))
    data = next(text for attrs, text in page.scripts if attrs.get("data-figure") == "figure-0")
    assert "<" not in data
    assert json.loads(data) == json.loads(figure("a < b & c").to_json())


def test_sections_are_there_when_they_have_content_and_tables_are_readable():
    page = page_html(content("abc"))
    for part in ("id=figures", "id=completions", "id=numbers", "id=settings", "id=command", "class=tiles"):
        assert part in page
        assert part not in page_html(Page(title="t"))
    assert "<td class=number>0.1235</td><td class=number>200</td>" in page
    assert "<td class=number>–</td><td class=number>3</td>" in page
    assert "<dt>coeffs</dt><dd>1, 4</dd>" in page
    assert "<dt>finished</dt><dd>yes</dd>" in page
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page


def test_the_same_content_gives_the_same_page():
    assert page_html(content("x")) == page_html(content("x"))


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.outside
@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on this machine")
def test_a_browser_draws_every_figure_without_errors_and_runs_nothing_of_the_users(tmp_path):
    path = write_page(tmp_path / "report.html", content(NASTY))
    switches = "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --dump-dom"
    own = [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=8000"]
    command = [BROWSER, *switches.split(), *own, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    assert len(re.findall(r'class="plot js-plotly-plot"', done.stdout)) == 2
    assert done.stdout.count('class="scatterlayer mlayer"') == 2
    assert "<title>Weddings &lt;/script&gt;" in done.stdout
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
