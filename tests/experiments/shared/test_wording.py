"""Numbers in words: their intervals, true signs, and what an interval leaves open."""

from __future__ import annotations

import math

import pytest

from steerlens.experiments.shared import wording

NAN = math.nan


@pytest.mark.parametrize(
    ("low", "high", "of", "told"),
    [(0.1, 0.2, 0, "above"), (-2, -1, 0, "below"), (-1, 1, 0, "unclear"), (1.01, 2, 1, "above"), (0, 1, 0, "unclear")],
)
def test_an_interval_lies_on_a_side_or_tells_nothing(low: float, high: float, of: float, told: str) -> None:
    assert wording.side(low, high, of=of) == told
    mirrored = {"above": "below", "below": "above", "unclear": "unclear"}[told]
    assert wording.side(-high, -low, of=-of) == mirrored


def test_of_what_is_not_known_nothing_is_said() -> None:
    assert wording.side(NAN, NAN) == "unclear"
    assert wording.ratio(1.5, NAN, NAN) == "1.500 times"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (wording.share(0.533, 0.409, 0.654), "53 % (95 %: 41 % to 65 %)"),
        (wording.points(-0.0667, -0.1032, -0.0291), "−6.7 points (95 %: −10.3 to −2.9)"),
        (wording.points(0.225, 0.0003, 0.428), "+22.50 points (95 %: +0.03 to +42.80)"),
        (wording.points(0.0, 0.0, 0.0), "0.0 points (95 %: 0.0 to 0.0)"),
        (wording.ratio(1.04, 1.027, 1.052), "1.040 times (95 %: 1.027 to 1.052)"),
        (wording.change(-0.0004, -0.002, 0.001), "0.000 (95 %: −0.002 to +0.001)"),
        (wording.premium(0.021, -0.004, 0.046), "+2.1 % (95 %: −0.4 % to +4.6 %)"),
        (wording.listed(["a"]), "a"),
        (wording.listed(["a", "b", "c"]), "a, b and c"),
        (wording.listed(list("abcdef"), most=2), "a, b and 4 more"),
    ],
)
def test_how_it_is_said(told: str, text: str) -> None:
    assert told == text
