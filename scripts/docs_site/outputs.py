"""What a piece of code shows, as HTML or Markdown that may stand in a page: text, tables, figures."""

from __future__ import annotations

import html
import json
from itertools import count
from typing import Any

_numbers = count()


def text_block(text: str) -> str:
    """Printed text, in a box of its own."""
    text = text.strip("\n")
    return f'<div class="sl-output"><pre>{html.escape(text)}</pre></div>' if text.strip() else ""


def figure(data: dict[str, Any]) -> str:
    """A plotly figure, given as its JSON; `assets/figures.js` draws it."""
    written = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&":  # nothing in a label may end the script
        written = written.replace(character, f"\\u{ord(character):04x}")
    height = (data.get("layout") or {}).get("height") or 450
    name = f"figure-{next(_numbers)}"
    return (
        f'<div class="sl-figure" id="{name}" style="min-height:{height}px">'
        f'<script type="application/json">{written}</script></div>'
    )


def table(frame: Any) -> str:
    """A pandas frame as an HTML table that scrolls sideways by itself."""
    import pandas as pd

    with pd.option_context("display.max_colwidth", 300):
        written = frame.to_html(
            index=bool(frame.index.name), border=0, classes="sl-frame", float_format=lambda x: f"{x:.3g}", na_rep="–"
        )
    return f'<div class="sl-table">{one_line(written)}</div>'


def value(result: Any) -> str:
    """What a notebook would show of the value at the end of a cell."""
    if result is None:
        return ""
    if hasattr(result, "to_plotly_json"):
        return figure(json.loads(result.to_json()))
    if hasattr(result, "to_frame") and hasattr(result, "dtype"):  # a series
        result = result.to_frame()
    if hasattr(result, "to_html") and hasattr(result, "columns"):
        return table(result)
    if own := getattr(result, "_repr_html_", None):
        shown = own()
        if shown:
            return f'<div class="sl-own">{one_line(shown)}</div>'
    return text_block(repr(result))


def one_line(written: str) -> str:
    """HTML without the line breaks at which Markdown would take it for text again (those inside <pre> are kept)."""
    parts = written.split("<pre")
    joined = [" ".join(parts[0].split())]
    for part in parts[1:]:
        inside, end, after = part.partition("</pre>")
        kept = inside.replace("\n", "&#10;")
        joined.append("<pre" + kept + end + " ".join(after.split()))
    return "".join(joined)
