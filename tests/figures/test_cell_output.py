"""The output of a cell: data for JupyterLab, and HTML that draws without a network."""

from __future__ import annotations

import re

import plotly.graph_objects as go
import pytest

from steerlens.figures import cell_output as outputs
from steerlens.figures.figure import CONFIG


@pytest.fixture(autouse=True)
def _new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_carrier", None)


def test_the_first_cell_brings_plotly_along_when_it_is_run_again_too() -> None:
    figure = go.Figure(go.Bar(y=[1, 2]))
    first, again, second = (outputs.cell_output(figure, CONFIG, cell=cell)["text/html"] for cell in ("a", "a", "b"))
    assert "DecompressionStream" in first and "DecompressionStream" in again
    assert len(first) < 2_500_000
    assert "DecompressionStream" not in second and len(second) < 20_000
    names = [re.findall(r'div id="([^"]+)"', one)[0] for one in (first, again, second)]
    assert len(set(names)) == 3


def test_labels_are_data() -> None:
    figure = go.Figure(go.Bar(x=["</script><b>"], y=[1]), layout_title_text="a & b")
    shown = outputs.cell_output(figure, CONFIG, cell="a")
    assert shown[outputs.MIMETYPE]["data"][0]["x"] == ["</script><b>"]
    assert "</script><b>" not in shown["text/html"]
    assert shown[outputs.MIMETYPE]["config"]["showSendToCloud"] is False
    assert "http" not in shown["text/html"].split("atob")[0]
