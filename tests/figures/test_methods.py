"""The figure of methods: every number of the frame is a mark with its interval."""

import pandas as pd
import pytest

from steerlens.errors import SteerlensError
from steerlens.figures.methods import methods_compared


def _summary():
    rows = []
    for group in ("up", "down"):
        for place, method in enumerate(("unsteered", "ActAdd", "prompting")):
            for metric, kind in (("success", "share"), ("disfluency", "mean")):
                mean = 0.2 + 0.1 * place + (group == "down") * 0.05 + 10 * (kind == "mean")
                rows.append(
                    {"direction": group, "method": method, "layer": 4 if place == 1 else None, "coeff": 2.0, "n": 10,
                     "metric": metric, "kind": kind, "mean": mean, "low": mean - 0.05, "high": mean + 0.08}
                )  # fmt: skip
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def test_every_number_is_a_mark_with_its_interval():
    summary = _summary()
    figure = methods_compared(summary, group="direction")
    marks = [trace for trace in figure.data if trace.hovertext is not None]
    assert len(marks) == 4  # two groups in two panels
    for trace in marks:
        metric = {"x": "success", "x2": "disfluency"}[trace.xaxis]
        own = summary[(summary["metric"] == metric) & (summary["direction"] == trace.name)]
        assert list(trace.x) == own["mean"].tolist()
        assert list(trace.error_x.array) == pytest.approx([0.08] * 3)
        assert list(trace.error_x.arrayminus) == pytest.approx([0.05] * 3)
        assert trace.marker.symbol[0].endswith("-open") and not trace.marker.symbol[1].endswith("-open")
        assert "layer 4, coefficient 2" in trace.hovertext[1] and "layer" not in trace.hovertext[0]
    assert list(figure.layout.yaxis.ticktext) == ["unsteered", "ActAdd", "prompting"]
    # Groups do not cover each other.
    assert not set(marks[0].y) & set(marks[1].y)
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["up", "down"]
    # The unsteered model of each group and panel is a line.
    lines = sorted(shape.x0 for shape in figure.layout.shapes)
    assert lines == pytest.approx(sorted(summary[summary["method"] == "unsteered"]["mean"]))


def test_one_group_and_names_that_are_markup():
    summary = _summary().query("direction == 'up'").replace({"method": {"ActAdd": "<b>x</b>"}})
    figure = methods_compared(summary)
    assert "&lt;b&gt;x&lt;/b&gt;" in figure.layout.yaxis.ticktext
    assert not any(trace.showlegend for trace in figure.data)


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(SteerlensError, match="more than one row"):
        methods_compared(_summary())
    with pytest.raises(SteerlensError, match="method"):
        methods_compared(_summary().drop(columns=["method"]), group="direction")
