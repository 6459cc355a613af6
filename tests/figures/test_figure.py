"""Wherever a figure is shown, it offers no upload; its text can be read on white."""

from __future__ import annotations

import copy
import json

import plotly.graph_objects as go
import plotly.io as pio

from steerlens.figures import theme
from steerlens.figures.figure import CONFIG, Figure


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_the_contrast_that_small_text_needs_on_white() -> None:
    for white in ("#ffffff", "#fcfcfb"):
        assert (luminance(white) + 0.05) / (luminance(theme.INK) + 0.05) >= 4.5


def test_no_figure_offers_to_be_uploaded(monkeypatch, tmp_path) -> None:
    figure = theme.new_figure("a")
    assert CONFIG["showSendToCloud"] is False and CONFIG["displaylogo"] is False
    written = '"showSendToCloud": false'
    assert written in figure.to_html(include_plotlyjs=False)
    figure.write_html(tmp_path / "a.html", include_plotlyjs=False)
    assert written in (tmp_path / "a.html").read_text(encoding="utf-8")
    for renderer, kind in (("plotly_mimetype", "application/vnd.plotly.v1+json"), ("notebook", "text/html")):
        monkeypatch.setattr(pio.renderers, "default", renderer)
        shown = figure._repr_mimebundle_()[kind]
        assert written in (shown if isinstance(shown, str) else json.dumps(shown))


def test_ones_own_config_wins(tmp_path) -> None:
    html = theme.new_figure("a").to_html({"displaylogo": True}, include_plotlyjs=False)
    assert '"displaylogo": true' in html and "showSendToCloud" not in html
    assert "showSendToCloud" not in theme.new_figure("a").to_html(config={}, include_plotlyjs=False)


def test_it_is_a_plotly_figure_and_copies_are_of_its_kind() -> None:
    figure = theme.new_figure("a")
    assert isinstance(figure, go.Figure) and type(copy.deepcopy(figure)) is Figure
    assert figure == go.Figure(figure)
