"""What results say at the end of a cell: a line of text, a table of headline numbers, everything in it escaped."""

from __future__ import annotations

import re
from typing import Any

import pytest

import steerlens as sl
from steerlens.showing import Shown

EVIL = "<script>alert(1)</script> & \x1b[31m"
PAIR = sl.PromptPair("Love", "Hate")


@pytest.fixture(scope="module")
def results(demo: Any) -> dict[str, Any]:
    vector = 2 * sl.actadd(demo, PAIR, layer=2)
    prompt = f"She said {EVIL} and"
    contrast = sl.ContrastSet.of([(f"I love {x}", f"I hate {x}") for x in ("it", "you", "dogs", "them")], name=EVIL)
    return {
        "SteeringVector": sl.actadd(demo, EVIL, "Hate", layer=2),
        "LogitShift": sl.logit_shift(demo, prompt, vector),
        "LayerEffect": sl.layer_effect(demo, PAIR, prompt, " love", layers=[1, 2]),
        "LayerLens": sl.layer_lens(demo, prompt, vector),
        "ShiftParts": sl.shift_parts(demo, prompt, vector),
        "Magnitudes": sl.magnitudes(demo, PAIR, prompt),
        "PositionEffect": sl.position_effect(demo, vector, prompt, " love"),
        "Directions": sl.directions(demo, contrast, methods=["mean_difference"], layers=[1, 2]),
        "TokenMap": sl.token_map(demo, prompt, vector),
        "Sweep": sl.sweep(demo, PAIR, prompt, layers=[2], n=2, max_new_tokens=3, metrics=[sl.metrics.words("love")]),
    }


NAMES = "SteeringVector LogitShift LayerEffect LayerLens ShiftParts Magnitudes PositionEffect Directions TokenMap Sweep"


@pytest.mark.parametrize("name", NAMES.split())
def test_a_result_is_one_line_of_text_and_a_table_without_markup_of_others(results: dict[str, Any], name: str) -> None:
    result = results[name]
    line = repr(result)
    assert line.startswith(f"{name}(") and line.endswith(")") and "\n" not in line and "\x1b" not in line
    assert len(line) <= 400 and "DataFrame" not in line and "tensor(" not in line
    shown = result._repr_html_()
    assert "<script" not in shown
    tags = set(re.findall(r"<(\w+)", shown))
    assert tags <= {"style", "table", "caption", "tbody", "thead", "tr", "th", "td", "p", "small"}
    _, facts = result._told()
    assert facts and all(str(value) not in ("", "nan nats", "None") for value in facts.values()), facts


def test_the_numbers_are_the_results_own(results: dict[str, Any]) -> None:
    shift, lens, places = results["LogitShift"], results["LayerLens"], results["PositionEffect"]
    assert f"{shift.summary['kl'].max():.3g} nats" in repr(shift)
    assert f"{lens.frame[lens.frame['lens_layer'] == 8]['kl'].max():.3g} nats" in repr(lens)
    best = places.summary.query("metric == 'effectiveness' and choice != 'unsteered'")
    assert f"{best['mean'].max():.3g} nats (placement {best.loc[best['mean'].idxmax(), 'choice']})" in repr(places)


def test_a_notebook_gets_numbers_and_figure_and_a_terminal_the_line(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ipython = pytest.importorskip("IPython")
    displayed: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda one, **options: displayed.append(one))
    monkeypatch.setattr(ipython, "get_ipython", lambda: None)
    results["LogitShift"]._ipython_display_()
    assert displayed == [] and capsys.readouterr().out == repr(results["LogitShift"]) + "\n"
    monkeypatch.setattr(ipython, "get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    for name in ("LogitShift", "SteeringVector"):
        displayed.clear()
        results[name]._ipython_display_()
        assert displayed[0]["text/plain"] == repr(results[name]) and "<table" in displayed[0]["text/html"]
        assert len(displayed) == (2 if name == "LogitShift" else 1), "a vector has no figure"


def test_a_result_that_cannot_be_drawn_still_tells_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = pytest.importorskip("IPython")

    class Nothing(Shown):
        def _told(self) -> tuple[str, dict[str, object]]:
            return "nothing", {}

        def plot(self) -> None:
            raise sl.SteerlensError("there is nothing to draw")

    displayed: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda one, **options: displayed.append(one))
    monkeypatch.setattr(ipython, "get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    Nothing()._ipython_display_()
    assert len(displayed) == 1 and repr(Nothing()) == "Nothing(nothing)"
