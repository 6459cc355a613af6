"""What a figure leaves in the output of a notebook's cell: plotly's own data, and HTML for what cannot draw these.

JupyterLab draws the data. A notebook turned into HTML (nbconvert) has only the HTML: the first figure of a session
brings plotly.js along, compressed (2 MB), and the others wait for it. Nothing is fetched from a network.
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from itertools import count
from typing import Any

MIMETYPE = "application/vnd.plotly.v1+json"

_LIBRARY = """window.steerlensPlotly ??= (async () => {
  if (window.Plotly) return window.Plotly;
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  return window.Plotly;
})();"""
_DRAW = """(async () => {
  const place = document.getElementById("%s"), figure = %s;
  const plotly = await window.steerlensPlotly ?? window.Plotly;
  if (place && plotly) plotly.newPlot(place, figure.data, figure.layout, figure.config);
})();"""

_numbers = count()
_carrier: str | None = None


def cell_output(figure: Any, config: dict[str, Any], *, cell: str) -> dict[str, Any]:
    """The figure by MIME type, for the output of the cell of that name.

    The first cell that asks carries plotly.js, also when it is run again.
    """
    global _carrier
    _carrier = cell if _carrier is None else _carrier
    data = {**json.loads(figure.to_json()), "config": config}
    written = json.dumps(data, ensure_ascii=False)
    for character in "<>&":  # nothing in a label may end the script
        written = written.replace(character, f"\\u{ord(character):04x}")
    name = f"steerlens-{cell}-{next(_numbers)}"
    scripts = [_library()] if cell == _carrier else []
    scripts.append(_DRAW % (name, written))
    height = int(figure.layout.height or 450)
    html = f'<div id="{name}" style="min-height:{height}px"></div>' + "".join(
        f"<script>{one}</script>" for one in scripts
    )
    return {MIMETYPE: data, "text/html": html, "text/plain": repr(figure)[:200]}


def current_cell() -> str:
    """The name of the cell that is running: its id where the front end gives one, else its number."""
    from IPython import get_ipython

    shell = get_ipython()
    metadata: dict[str, Any] = shell.get_parent().get("metadata", {}) if hasattr(shell, "get_parent") else {}
    found = metadata.get("cellId") or getattr(shell, "execution_count", 0)
    return "".join(letter for letter in str(found) if letter.isalnum())


@cache
def _library() -> str:
    from plotly.offline import get_plotlyjs

    return _LIBRARY % base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
