"""Slopes, wrong ways and turns against numpy and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steerlens.measures.reliability import by_direction, by_prompt, paraphrase_spread, turning_point

COEFFS = [-1.0, 0.0, 1.0, 2.0]


def values(
    curves: dict[int, np.ndarray], *, direction: str = "as given", split: str = "in distribution"
) -> pd.DataFrame:
    """One row per value of curves [sample coeff], one for each prompt."""
    rows = [
        (direction, "in distribution", number, f"p{number}", coeff, sample, float(value))
        for number, table in curves.items()
        for sample, row in enumerate(np.atleast_2d(table))
        for coeff, value in zip(COEFFS, row, strict=True)
    ]
    return pd.DataFrame(rows, columns=["direction", "split", "number", "prompt", "coeff", "sample", "value"])


def test_the_slope_is_numpys_and_its_interval_that_of_samples() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(12, 4)) + np.arange(4)
    (row,) = by_prompt(values({0: table})).to_dict("records")
    slopes = np.polyfit(COEFFS, table.T, 1)[0]
    assert row["slope"] == pytest.approx(slopes.mean()) == pytest.approx(np.polyfit(COEFFS, table.mean(0), 1)[0])
    half = 2.200985 * slopes.std(ddof=1) / np.sqrt(12)
    assert (row["slope_low"], row["slope_high"]) == pytest.approx(
        (slopes.mean() - half, slopes.mean() + half), abs=1e-5
    )
    assert row["effect"] == pytest.approx((table[:, 3] - table[:, 1]).mean())
    assert row["n"] == 12 and not row["wrong"] and not row["surely_wrong"]


def test_which_way_is_wrong_is_the_metrics_to_say() -> None:
    data = values({0: np.array([0, 1, 2, 3]), 1: np.array([3, 2, 1, 0]), 2: np.array([0, 2, 4, 6])})
    assert by_prompt(data)["wrong"].tolist() == [False, True, False]
    assert by_prompt(data, better="lower")["wrong"].tolist() == [True, False, True]
    (row,) = by_direction(by_prompt(data)).to_dict("records")
    assert (row["wrong"], row["surely_wrong"], row["turning"]) == pytest.approx((1 / 3, 1 / 3, 0))
    assert row["slope"] == pytest.approx(2 / 3) and row["sd"] == pytest.approx(np.std([1, -1, 2], ddof=1))


@pytest.mark.parametrize(
    ("curve", "turns"),
    [
        ([0, 1, 2, 3], np.nan),
        ([3, 2, 1, 0], np.nan),
        ([0, 1, 3, 1], 1.0),
        ([0, 1, 3, 2.9], np.nan),  # less than 5 % of the range
        ([3, 0, 1, -5], 0.0),  # downhill, and up from 0 to 1
        ([1, 1, 1, 1], np.nan),
    ],
)
def test_a_turn_is_named_by_the_coefficient_that_it_begins_at(curve, turns) -> None:
    found = turning_point(np.array(COEFFS), np.array([curve], dtype=float))
    assert found == turns or (np.isnan(found) and np.isnan(turns))


def test_samples_must_agree_on_a_turn() -> None:
    rng = np.random.default_rng(1)
    sure = np.array([0, 1, 3, 1.0]) + 0.1 * rng.normal(size=(20, 4))
    assert turning_point(np.array(COEFFS), sure) == 1.0
    noise = np.array([0, 1, 3, 2.7]) + 3 * rng.normal(size=(20, 4))
    assert np.isnan(turning_point(np.array(COEFFS), noise))


def test_missing_values_leave_out_their_sample_and_nothing_else() -> None:
    table = np.array([[0, 1, 2, 3], [0, np.nan, 9, 9], [1, 2, 3, 4.0]])
    (row,) = by_prompt(values({0: table})).to_dict("records")
    assert row["n"] == 2 and row["slope"] == pytest.approx(1)
    (gone,) = by_prompt(values({0: np.full((1, 4), np.nan)})).to_dict("records")
    assert gone["n"] == 0 and np.isnan(gone["slope"]) and not gone["wrong"]
    (summary,) = by_direction(by_prompt(values({0: np.full((1, 4), np.nan)}))).to_dict("records")
    assert summary["prompts"] == 0 and np.isnan(summary["slope"])


def test_spread_over_paraphrases() -> None:
    up, down = np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0])
    parts = [
        values({0: up, 1: up}),
        values({0: 3 * up, 1: down}, direction="b"),
        values({0: 2 * up, 1: up}, direction="c"),
    ]
    spread = paraphrase_spread(by_prompt(pd.concat(parts)))
    assert spread["slope"].tolist() == pytest.approx([2, 1 / 3])
    assert spread["sd"].tolist() == pytest.approx([1, np.std([1, -1, 1], ddof=1)])
    assert spread["agree"].tolist() == pytest.approx([1, 2 / 3])
