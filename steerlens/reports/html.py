"""A page as one HTML file that opens without a network: figures, tables, completions and settings, all text escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from steerlens.figures import theme
from steerlens.figures.figure import CONFIG
from steerlens.reports.page import Completions, Page
from steerlens.reports.page_style import PAGE, SCRIPT, STYLE

if TYPE_CHECKING:
    import plotly.graph_objects as go


def page_html(page: Page) -> str:
    """The whole file as text: plotly.js is in it once, and its own security policy forbids it to fetch anything."""
    scripts = ""
    if page.figures:
        # The library itself holds no "</script"; a stray one would end the element early.
        library = get_plotlyjs().replace("</script", "<\\/script")
        scripts = f'<script type="application/json" id="plotly-config">{json.dumps(CONFIG)}</script>'
        scripts += f'<script id="plotly-library">{library}</script>'
    return PAGE.format(
        title=html.escape(page.title),
        subtitle=f"<p class=subtitle>{html.escape(page.subtitle)}</p>" if page.subtitle else "",
        style=STYLE,
        sections="\n".join(_sections(page)),
        footer=html.escape(f"steerlens {_version()}"),
        scripts=f"{scripts}<script>{SCRIPT}</script>",
    )


def _sections(page: Page) -> Iterator[str]:
    if page.headlines:
        tiles = "".join(
            f"<div class=tile><dt>{html.escape(one.label)}</dt><dd>{html.escape(one.value)}"
            f"<small>{html.escape(one.note)}</small></dd></div>"
            for one in page.headlines
        )
        yield f"<dl class=tiles>{tiles}</dl>"
    if page.links:
        links = "".join(
            f'<li><a href="{quote(name)}">{html.escape(title)}</a></li>' for title, name in page.links.items()
        )
        yield f"<nav aria-label=Pages><ul>{links}</ul></nav>"
    if page.figures:
        drawn = "".join(_figure(index, caption, figure) for index, (caption, figure) in enumerate(page.figures.items()))
        yield f'<section id=figures aria-label="Figures">{drawn}</section>'
    if page.completions:
        body = "".join(_completions(one) for one in page.completions)
        wide = f"<div class=wide tabindex=0 role=region aria-label=Completions>{body}</div>"
        yield f"<section id=completions><h2>Completions</h2>{wide}</section>"
    if page.tables:
        drawn = "".join(_table(caption, frame) for caption, frame in page.tables.items())
        yield f"<section id=numbers><h2>Numbers</h2>{drawn}</section>"
    if page.settings:
        items = "".join(
            f"<div><dt>{html.escape(str(key))}</dt><dd>{html.escape(_plain(value))}</dd></div>"
            for key, value in page.settings.items()
        )
        yield f"<section id=settings><h2>Settings</h2><dl class=settings>{items}</dl></section>"
    if page.command:
        yield (
            "<section id=command><h2>To reproduce this</h2><div class=command>"
            f"<pre><code>{html.escape(page.command)}</code></pre>"
            "<button type=button id=copy>Copy</button></div></section>"
        )


def _figure(index: int, caption: str, figure: go.Figure) -> str:
    # JSON in a script element ends at "</script" wherever it stands, so no "<" may remain, in user text least of all.
    data = figure.to_json().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    height = int(figure.layout.height or 450)
    words = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    name = html.escape(caption or figure.layout.title.text or f"figure {index + 1}", quote=True)
    return (
        f'<figure><div class=plot id="figure-{index}" role=group aria-label="{name}" style="min-height:{height}px">'
        "</div>"
        f'<script type="application/json" data-figure="figure-{index}">{data}</script>{words}</figure>'
    )


def _completions(one: Completions) -> str:
    heading = f"<h3>{html.escape(one.heading)}</h3>" if one.heading else ""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in one.lines)
    folded = ""
    if one.folded is not None:
        folded = f"<details><summary>{html.escape(one.folded_title)}</summary>{one.folded.html}</details>"
    return f"{heading}{lines}{one.shown.html}{folded}"


def _table(caption: str, frame: pd.DataFrame) -> str:
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    head = "".join(
        f"<th scope=col{' class=number' if right else ''}>{html.escape(str(column))}</th>"
        for column, right in zip(frame.columns, numeric, strict=True)
    )
    rows = []
    for values in frame.itertuples(index=False):
        cells = "".join(
            f"<td{' class=number' if right else ''}>{html.escape(_plain(value))}</td>"
            for value, right in zip(values, numeric, strict=True)
        )
        rows.append(f"<tr>{cells}</tr>")
    return (
        f"<div class=table tabindex=0><table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _plain(value: Any) -> str:
    """A value as a person would write it: short floats, commas in lists, a dash for nothing."""
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return theme.number(float(value), 4)
    if isinstance(value, int | np.integer):
        return str(value).replace("-", "−")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return str(value)


def _version() -> str:
    try:
        return version("steerlens")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return ""
