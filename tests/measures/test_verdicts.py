"""Verdicts: each is reached by the numbers that it names, and chance alone earns no praise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steerlens.measures import verdicts as v
from steerlens.measures.pairing import holm
from steerlens.measures.verdicts import samples_needed, verdicts

N = 100


def frame(**shares: tuple[float, float]) -> pd.DataFrame:
    """Completions of one prompt by role: (share on topic, surprise); random draws of a fixed seed."""
    rng = np.random.default_rng(0)
    rows = []
    for condition, (name, (share, surprise)) in enumerate(shares.items()):
        role = name.rstrip("0123456789")
        for sample in range(N):
            rows.append(
                {
                    "condition": condition,
                    "label": name,
                    "role": role,
                    "layer": pd.NA if role in ("unsteered", "prompting") else 3,
                    "coeff": -1.0 if role == "negated" else 1.0,
                    "placement": "front",
                    "prompt": "p",
                    "sample": sample,
                    "surprise": surprise + rng.normal(scale=0.1),
                    "hit": float(rng.random() < share),
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ({"steered": (0.6, 2.0), "random": (0.0, 2.0)}, v.WORKS),
        ({"steered": (0.6, 2.0)}, v.WORKS),
        ({"steered": (0.5, 2.0), "random": (0.5, 2.0)}, v.NO_BETTER_THAN_RANDOM),
        ({"steered": (0.4, 2.0), "random": (0.0, 2.0), "prompting": (0.95, 2.0)}, v.LESS_THAN_PROMPTING),
        ({"steered": (0.9, 2.0), "random": (0.0, 2.0), "prompting": (0.5, 2.0)}, v.WORKS),
        ({"steered": (0.5, 2.0), "random": (0.0, 2.0), "shuffled": (0.5, 2.0)}, v.NO_BETTER_THAN_RANDOM),
        ({"steered": (0.5, 2.0), "random": (0.0, 2.0), "negated": (0.5, 2.0)}, v.NO_BETTER_THAN_RANDOM),
        ({"steered": (0.5, 2.0), "prompting1": (0.1, 2.0), "prompting2": (0.9, 2.0)}, v.LESS_THAN_PROMPTING),
        ({"steered": (0.9, 6.0), "random": (0.0, 2.0)}, v.BREAKS),
        ({"steered": (0.0, 6.0), "random": (0.0, 2.0)}, v.BREAKS),
        ({"steered": (0.0, 2.0), "random": (0.0, 2.0)}, v.NO_EFFECT),
        ({"steered": (0.06, 2.0), "random": (0.0, 2.0)}, v.TOO_FEW),
    ],
    ids=str,
)
def test_numbers_and_their_verdict(shares, verdict) -> None:
    (row,) = verdicts(frame(unsteered=(0.0, 2.0), **shares), "hit", "share").to_dict("records")
    assert row["verdict"] == verdict, row["why"]
    assert pd.isna(row["more"]) == (verdict != v.TOO_FEW)


def test_where_lower_is_better_taking_away_works_and_adding_does_not() -> None:
    data = frame(unsteered=(0.9, 2.0), steered=(0.1, 2.0), random=(0.9, 2.0), prompting=(0.9, 2.0))
    (row,) = verdicts(data, "hit", "share", better="lower").to_dict("records")
    assert row["verdict"] == v.WORKS and row["difference"] > 0.6 and row["over_prompting"] > 0.6
    (row,) = verdicts(data, "hit", "share").to_dict("records")
    assert row["verdict"] == v.NO_EFFECT
    (row,) = verdicts(data, "hit", "mean", better="lower").to_dict("records")
    assert row["verdict"] == v.WORKS and row["difference"] < -0.6  # in the metric's own unit
    told = frame(unsteered=(0.9, 2.0), steered=(0.5, 2.0), random=(0.9, 2.0), prompting=(0.0, 2.0))
    (row,) = verdicts(told, "hit", "mean", better="lower").to_dict("records")
    assert row["verdict"] == v.LESS_THAN_PROMPTING


def test_too_few_samples_says_how_many_more() -> None:
    (row,) = verdicts(frame(unsteered=(0.0, 2.0), steered=(0.06, 2.0)), "hit", "share").to_dict("records")
    seen = row["difference"]
    assert row["more"] == samples_needed(seen, 0.0) - N


def test_chance_among_many_conditions_is_no_effect() -> None:
    """60 conditions that do nothing: uncorrected, some reach p < .05; corrected, none works."""
    many = {f"steered{i}": (0.1, 2.0) for i in range(60)}
    found = verdicts(frame(unsteered=(0.1, 2.0), **many), "hit", "share")
    assert len(found) == 60
    assert not found["verdict"].eq(v.WORKS).any()


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    found = holm([0.01, np.nan])
    assert found[0] == 0.02 and np.isnan(found[1])


def test_the_sample_size_gives_the_power_it_promises() -> None:
    """Simulated: the two-proportion z test at that size finds the difference in about 80 % of experiments."""
    first, second = 0.3, 0.15
    n = samples_needed(first, second)
    rng = np.random.default_rng(1)
    a, b = rng.binomial(n, first, 4000) / n, rng.binomial(n, second, 4000) / n
    pooled = (a + b) / 2
    z = (a - b) / np.sqrt(2 * pooled * (1 - pooled) / n)
    assert np.mean(z > 1.96) == pytest.approx(0.8, abs=0.03)
    assert samples_needed(0.2, 0.2) == 10**9
