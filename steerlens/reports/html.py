"""A page as one HTML file that opens without a network: figures, tables, completions and settings, all text escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import quote

from steerlens.figures.figure import CONFIG
from steerlens.reports.drawing_library import Library, library_element
from steerlens.reports.embedding import guarded, json_text, packed
from steerlens.reports.page import Completions, Page
from steerlens.reports.page_style import PAGE, script, style
from steerlens.reports.tables import plain, table_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HINT = "Choose a condition here, or by its point or cell in a figure, or by its row in a table."


def page_html(page: Page, *, library: Library = "inside") -> str:
    """The whole file as text: its own security policy forbids it to fetch anything but a plotly.js beside it.

    Args:
        library: "inside" packs plotly.js into the page; "beside" has it read the file that `write_library` writes.
    """
    scripts = ""
    if page.figures:
        scripts = f'<script type="application/json" id="plotly-config">{json.dumps(CONFIG)}</script>'
        scripts += library_element(library)
    return PAGE.format(
        title=html.escape(page.title),
        subtitle=f"<p class=subtitle>{html.escape(page.subtitle)}</p>" if page.subtitle else "",
        beside=" 'self' file:" if page.figures and library == "beside" else "",
        style=style(),
        sections="\n".join(_sections(page)),
        footer=html.escape(f"steerlens {_version()}"),
        scripts=f"{scripts}<script>{script()}</script>",
    )


def _sections(page: Page) -> Iterator[str]:
    if page.answer:
        said = "".join(_said(one) for one in page.answer)
        yield f"<section id=answer aria-label=Answer>{said}</section>"
    if page.headlines:
        tiles = "".join(
            f"<div class=tile><dt>{html.escape(one.label)}</dt><dd>{html.escape(one.value)}"
            f"<small>{html.escape(one.note)}</small></dd></div>"
            for one in page.headlines
        )
        yield f"<dl class=tiles>{tiles}</dl>"
    if page.links:
        links = "".join(
            f'<li><a href="{quote(name)}">{html.escape(title)}</a>{_said(page.said_there.get(title, ""))}</li>'
            for title, name in page.links.items()
        )
        yield f"<nav aria-label=Pages{' class=told' if page.said_there else ''}><ul>{links}</ul></nav>"
    if page.figures:
        drawn = "".join(_figure(index, caption, figure) for index, (caption, figure) in enumerate(page.figures.items()))
        yield f'<section id=figures aria-label="Figures">{drawn}</section>'
    if page.completions:
        body = "".join(_completions(one) for one in page.completions)
        wide = f"<div class=wide tabindex=0 role=region aria-label=Completions>{body}</div>"
        yield f"<section id=completions><h2>Completions</h2><div class=sideways>{wide}</div></section>"
    if page.every is not None:
        yield (
            f"<section id=every><h2>All completions</h2><p class=hint>{_HINT}</p></section>"
            f'<script type="text/plain" data-completions>{packed(json_text(page.every.data()))}</script>'
        )
    if page.tables:
        drawn = "".join(table_html(index, caption, frame) for index, (caption, frame) in enumerate(page.tables.items()))
        yield f"<section id=numbers><h2>Numbers</h2>{drawn}</section>"
    for heading, remarks in page.notes.items():
        lines = "".join(f"<li>{html.escape(one)}</li>" for one in remarks)
        yield f"<section class=notes><h2>{html.escape(heading)}</h2><ul>{lines}</ul></section>"
    if page.settings:
        items = "".join(
            f"<div><dt>{html.escape(str(key))}</dt><dd>{html.escape(plain(value))}</dd></div>"
            for key, value in page.settings.items()
        )
        yield f"<section id=settings><h2>Settings</h2><dl class=settings>{items}</dl></section>"
    if page.command:
        yield (
            "<section id=command><h2>To reproduce this</h2><div class=command>"
            f"<pre><code>{html.escape(page.command)}</code></pre>"
            "<button type=button id=copy>Copy</button></div></section>"
        )


def _said(text: str) -> str:
    """A paragraph in which no per cent sign begins a line."""
    return f"<p>{html.escape(text).replace(' %', '&nbsp;%')}</p>" if text else ""


def _figure(index: int, caption: str, figure: go.Figure) -> str:
    data = guarded(figure.to_json())
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


def _version() -> str:
    try:
        return version("steerlens")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return ""
