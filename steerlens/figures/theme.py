"""One look for every figure: colours, template, and how tokens and user text are written into plotly labels."""

import math
import re
import unicodedata
from collections.abc import Sequence

import plotly.colors
import plotly.graph_objects as go

from steerlens.figures.figure import Figure

# Okabe & Ito 2008, told apart with any colour vision; less black (lost on a dark page) and yellow (lost on white).
BLUE, ORANGE_RED, GREEN, PURPLE, ORANGE, SKY = "#0A78B8", "#D55E00", "#009E73", "#C06A99", "#E69F00", "#56B4E9"
PALETTE = (BLUE, ORANGE_RED, GREEN, PURPLE, ORANGE, SKY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")  # a second cue beside the colour

# Middle greys, because the page behind a figure is not ours: text has 4.5 to 1 against a white one and nearly 4 to 1
# against a black one (reports give it the ink of their page).
INK = "#6e757f"
GRID = "rgba(128,136,148,0.20)"
ZERO = "rgba(128,136,148,0.55)"
BASELINE = "#858c96"
BAND_ALPHA = 0.16

# Opaque scales, light at the quiet end: text on a cell then has a known background on any page.
SEQUENTIAL = (
    (0.0, "#eef3f6"),
    (0.2, "#c3dbe6"),
    (0.4, "#86b9d0"),
    (0.6, "#4690b5"),
    (0.8, "#1a6494"),
    (1.0, "#0b3a63"),
)
DIVERGING = (
    (0.0, "#9c3d00"),
    (0.2, "#d9772f"),
    (0.38, "#f0c199"),
    (0.5, "#f3f2ef"),
    (0.62, "#a9cde0"),
    (0.8, "#3f8fbd"),
    (1.0, "#0a4f7f"),
)

# Viridis less its ends, which a dark page and a white page swallow: for marks on the bare background.
ORDERED = tuple(
    (step / 8, str(colour))
    for step, colour in enumerate(plotly.colors.sample_colorscale("Viridis", [0.22 + 0.64 * i / 8 for i in range(9)]))
)

FONT = "Inter, 'Source Sans 3', 'Segoe UI', system-ui, -apple-system, Helvetica, Arial, sans-serif"
MONO = "'JetBrains Mono', 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

THEME = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"x": 0, "xref": "paper", "xanchor": "left", "yref": "container", "y": 0.97, "yanchor": "top",
                  "font": {"size": 17, "weight": 600}, "subtitle": {"font": {"size": 13, "color": INK}}},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(PALETTE),
        "margin": {"l": 70, "r": 28, "t": 84, "b": 64},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#20262e", "bordercolor": "#20262e", "align": "left",
                       "font": {"family": FONT, "size": 13, "color": "#f4f6f8"}},
        # At the right: a row of entries over the plot wraps, and then runs into the title.
        "legend": {"x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top", "bgcolor": "rgba(0,0,0,0)",
                   "itemsizing": "trace", "itemwidth": 38, "tracegroupgap": 0,
                   "title": {"font": {"size": 13}}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ZERO, "activecolor": BLUE},
        "xaxis": {"gridcolor": GRID, "zerolinecolor": ZERO, "zeroline": False, "showgrid": False, "ticks": "outside",
                  "tickcolor": GRID, "linecolor": ZERO, "showline": True, "title": {"standoff": 12},
                  "automargin": True},
        "yaxis": {"gridcolor": GRID, "zerolinecolor": ZERO, "zeroline": False, "ticks": "", "title": {"standoff": 14},
                  "ticklabelstandoff": 6, "automargin": True},
        "coloraxis": {"colorbar": {"thickness": 12, "outlinewidth": 0, "ticks": "", "len": 0.9,
                                   "title": {"side": "right"}}},
        "annotationdefaults": {"font": {"size": 12, "color": INK}, "showarrow": False},
    }
)  # fmt: skip

_INVISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}
_MATHS = re.compile(r"\$")


def new_figure(title: str | None = None, subtitle: str | None = None, *, height: int = 440) -> go.Figure:
    """An empty figure in the theme. `title` and `subtitle` are plain text: they are escaped here."""
    figure = Figure(layout={"template": THEME, "height": height})
    if title:
        figure.update_layout(title_text=escape(title), margin_t=84 if subtitle else 60)
    if title and subtitle:
        figure.update_layout(title_subtitle_text=escape(subtitle))
    return figure


def escape(text: object) -> str:
    """`text` as plotly label text that shows every character as it is.

    Plotly reads <b>, <a href>, <br> and entities in labels, hover and titles, and pages with MathJax read $…$.
    """
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MATHS.sub("&#36;", escaped)


def visible_token(token: str) -> str:
    """`token` with white space and other invisible characters made visible: " wedding" is "␣wedding"."""
    if token == "":
        return "∅"
    return "".join(_INVISIBLE.get(character) or _shown(character) for character in token)


def token_label(token: str, *, limit: int = 24) -> str:
    """`token` visible, cut to `limit` characters, escaped: what labels and hover text use."""
    shown = visible_token(token)
    return escape(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def shorten(text: str, limit: int = 60) -> str:
    """`text` on one line of at most `limit` characters, with an ellipsis where it was cut. Not escaped."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def number(value: float, digits: int = 3) -> str:
    """`value` to a few significant digits (thousands in full) with a true minus sign; "n/a" for NaN."""
    if value is None or math.isnan(value):
        return "n/a"
    if 1000 <= abs(value) < 10**6:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}" if 1e-4 <= abs(value) < 10**6 or value == 0 else f"{value:.{digits - 1}e}"
    return text.replace("-", "−") if value < 0 else text


def plain_value(value: object) -> str:
    """`value` as it stands in a label: whole floats without their ".0"."""
    return number(float(value), 4) if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    """`share` of 1 as per cent with as many decimals as it needs: < 0.001 %, 0.31 %, 4.2 %, 96 %, 99.5 %."""
    if share is None or math.isnan(share):
        return "n/a"
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    if value > 99:  # 199 of 200 is not all of them
        return "> 99.9 %" if value > 99.9 else f"{value:.1f} %"
    if value >= 1:
        return f"{value:.0f} %" if value >= 10 else f"{value:.1f} %"
    return f"{value:.2g} %" if value >= 0.001 else "< 0.001 %"


def line_colours(count: int) -> list[str]:
    """`count` colours for lines: the palette while it lasts, then evenly spaced steps of one ordered scale."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    steps = [index / (count - 1) for index in range(count)]
    return [str(colour) for colour in plotly.colors.sample_colorscale([colour for _, colour in ORDERED], steps)]


def see_through(colour: str, alpha: float = BAND_ALPHA) -> str:
    """`colour` ("#rrggbb" or "rgb(r, g, b)") as an rgba string of the given opacity."""
    if colour.startswith("#"):
        red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    else:
        red, green, blue = (int(float(part)) for part in re.findall(r"[\d.]+", colour)[:3])
    return f"rgba({red},{green},{blue},{alpha})"


def layer_ticks(layers: Sequence[int]) -> dict[str, object]:
    """Axis settings that label whole layers only: each of them up to 26, then every 5th or 10th."""
    low, high = min(layers), max(layers)
    count = high - low + 1
    step = 1 if count <= 26 else 5 if count <= 60 else 10
    return {"tickmode": "linear", "tick0": 0, "dtick": step, "range": [low - 0.5, high + 0.5]}


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Cf", "Zs", "Zl", "Zp", "Cs", "Co", "Cn"):
        return f"\\u{ord(character):04x}"
    return character
