"""Effect and damage: fluency is judged against unsteered text of the same prompt; fronts and knees as by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steerlens.errors import SteerlensError
from steerlens.measures.damage import effects, fluent, front_and_knee


def completions(n: int = 2, **changes) -> pd.DataFrame:
    """Two prompts × n samples, unsteered and steered."""
    rows = []
    for condition, role in enumerate(["unsteered", "steered"]):
        for prompt, usual in (("a", 1.0), ("b", 3.0)):
            for sample in range(n):
                rows.append(
                    {
                        "condition": condition,
                        "label": role,
                        "role": role,
                        "layer": pd.NA if condition == 0 else 2,
                        "coeff": float(condition),
                        "placement": "front",
                        "prompt": prompt,
                        "sample": sample,
                        "completion": "one two three",
                        "finished": sample % 2 == 0,
                        "surprise": usual + (0.8 if condition else 0.1 * (2 * (sample % 2) - 1)),
                        "hit": float(condition),
                    }
                )
    return pd.DataFrame(rows).assign(**changes)


def test_fluency_is_judged_by_prompt() -> None:
    frame = completions()
    assert fluent(frame).all()
    # 3.8 nats are usual after "b" and would be far off after "a".
    frame.loc[(frame["prompt"] == "a") & (frame["role"] == "steered"), "surprise"] = 3.8
    assert fluent(frame).tolist() == [True] * 4 + [False, False, True, True]
    assert fluent(frame, margin=3).all()


def test_no_text_is_not_fluent() -> None:
    frame = completions()
    frame.loc[7, "surprise"] = np.nan
    assert fluent(frame).tolist() == [True] * 7 + [False]


def test_effects_count_what_is_on_topic_and_fluent() -> None:
    frame = completions(n=4)
    frame.loc[(frame["prompt"] == "a") & (frame["role"] == "steered"), "surprise"] = 3.8
    table = effects(frame, "hit", "share").set_index("role")
    assert (table["effect"]["steered"], table["success"]["steered"], table["fluent"]["steered"]) == (1.0, 0.5, 0.5)
    assert (table["effect"]["unsteered"], table["success"]["unsteered"]) == (0.0, 0.0)
    assert table["extra_surprise"]["steered"] == pytest.approx((3.8 + 3.8) / 2 - 2.0)
    assert table["ended"]["steered"] == 0.5
    assert table["success_low"]["steered"] < 0.5 < table["success_high"]["steered"]
    assert table["front"].tolist() == table["knee"].tolist() == [False, True]  # the baseline is never on it
    few = effects(completions(), "hit", "share").set_index("role")
    assert few["front"]["steered"] and not few["knee"].any()  # 4 of 4 against 0 of 4 may be chance: p = 1/8
    mean = effects(frame, "hit", "mean").set_index("role")
    assert mean["success"]["steered"] == 1.0  # a mean metric knows no "and"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"role": "steered"}, "nothing unsteered"), ({"surprise": None}, "nothing unsteered")],
)
def test_what_is_missing_is_one_line(changes, words) -> None:
    with pytest.raises(SteerlensError, match=words):
        fluent(completions(**changes))


def test_without_surprise_there_is_no_fluency() -> None:
    with pytest.raises(SteerlensError, match="no column 'surprise'"):
        fluent(completions().drop(columns="surprise"))


def test_the_knee_is_where_more_effect_begins_to_cost() -> None:
    effect = np.array([0.1, 0.8, 0.85, 0.9, 0.5])
    damage = np.array([1.0, 1.2, 2.5, 4.0, 3.0])
    front, knee = front_and_knee(effect, damage)
    assert front.tolist() == [True, True, True, True, False]
    assert knee.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("effect", "damage", "where"),
    [
        ([0.3], [1.0], 0),
        ([0.2, 0.4], [1.0, 2.0], 1),
        ([0.2, 0.4], [1.0, 1.0], 1),
        ([0.1, 0.2, 0.9], [1.0, 2.0, 3.0], 2),
    ],
)
def test_a_front_without_a_bend_has_its_knee_at_the_largest_effect(effect, damage, where) -> None:
    _, knee = front_and_knee(np.array(effect), np.array(damage))
    assert np.flatnonzero(knee).tolist() == [where]


def test_the_knee_is_a_condition_that_has_an_effect() -> None:
    """Without `real` the second point would be it, of all the one that does nothing."""
    effect, damage = np.array([-0.1, 0.0, 0.05]), np.array([1.0, 1.1, 4.0])
    assert front_and_knee(effect, damage)[1].tolist() == [False, True, False]
    front, knee = front_and_knee(effect, damage, real=np.array([False, False, True]))
    assert front.all() and knee.tolist() == [False, False, True]
    assert not front_and_knee(effect, damage, real=np.zeros(3, dtype=bool))[1].any()


def test_where_lower_is_better_success_is_its_absence_and_the_front_goes_down() -> None:
    frame = completions(n=4)
    frame["hit"] = 1 - frame["hit"]  # steering takes it away
    up = effects(frame, "hit", "share").set_index("role")
    down = effects(frame, "hit", "share", better="lower").set_index("role")
    assert (up["success"]["unsteered"], down["success"]["unsteered"]) == (1.0, 0.0)
    assert (up["success"]["steered"], down["success"]["steered"]) == (0.0, 1.0)
    assert not up["knee"].any() and down["knee"]["steered"]


def test_nan_is_never_on_the_front() -> None:
    front, knee = front_and_knee(np.array([np.nan, 0.1]), np.array([1.0, np.nan]))
    assert not front.any() and not knee.any()
