"""The data of the completions in a page: conditions told apart, words found where a browser counts."""

import pandas as pd

from steerlens.measures.metrics import length, words
from steerlens.reports.all_completions import AllCompletions


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": [0, 0, 1, 2, -2],
            "label": ["unsteered", "unsteered", "v", "v", "random vector"],
            "role": ["unsteered", "unsteered", "steered", "steered", "random"],
            "layer": pd.array([None, None, 3, 4, 3], dtype="Int64"),
            "prompt": "She said",
            "sample": [0, 1, 0, 0, 0],
            "completion": ["a wedding", "", "😀 𝔘 a bride and a 𝔅ride, a groom", "ü wed", "none"],
            "surprise": [1.0, float("nan"), 2.0, 3.0, 4.0],
        }
    )


def test_conditions_have_names_of_their_own_in_groups() -> None:
    found = AllCompletions(frame=frame(), metric=words("weddings"), names={-2: "noise"}).data()["conditions"]
    assert [(one["number"], one["name"], one["group"]) for one in found] == [
        (0, "unsteered", "Unsteered"),
        (1, "v, layer 3", "Steered"),
        (2, "v, layer 4", "Steered"),
        (-2, "noise", "Random vector of equal norm"),
    ]


def test_parts_of_a_run_are_headings_and_may_repeat_a_name() -> None:
    again = frame().assign(condition=[-3, -3, -4, -5, -6], part="confirmation")
    parts = AllCompletions(frame=pd.concat([frame().assign(part="search"), again])).data()["conditions"]
    assert [one["name"] for one in parts[:4]] == [one["name"] for one in parts[4:]]
    assert [parts[1]["group"], parts[-2]["group"]] == ["search: steered", "confirmation: steered"]


def test_marks_are_places_as_a_browser_counts_them() -> None:
    data = AllCompletions(frame=frame(), metric=words("weddings")).data()
    for text, ends in zip(frame()["completion"], data["marks"], strict=True):
        units = text.encode("utf-16-le")
        marked = [units[2 * a : 2 * b].decode("utf-16-le") for a, b in zip(ends[::2], ends[1::2], strict=True)]
        assert marked == [text[a:b] for a, b in words("weddings").spans(text)]
    assert [len(ends) // 2 for ends in data["marks"]] == [1, 0, 2, 1, 0]


def test_without_words_there_are_no_marks_and_unknown_columns_are_left_out() -> None:
    data = AllCompletions(frame=frame(), metric=length(), numbers=["surprise", "length in words"]).data()
    assert data["marks"] is None
    assert data["numbers"] == ["surprise"]
    assert AllCompletions(frame=frame()).data()["metric"] is None
