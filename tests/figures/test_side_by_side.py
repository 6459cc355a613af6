"""Completions stand side by side, on the page and in the terminal."""

import pandas as pd
import pytest

from steerlens import figures
from steerlens.errors import SteerlensError
from steerlens.measures.metrics import length, words
from tests.figures.frames import completions


def test_completions_stand_side_by_side_with_marked_words():
    shown = figures.completions_side_by_side(completions(), words("weddings"), n=2)
    assert shown.columns == ("unsteered", "c1", "c2")
    assert shown.notes == ("weddings: 0 of 8 (0 %)", "weddings: 0 of 8 (0 %)", "weddings: 8 of 8 (100 %)")
    assert shown.html.count("<mark>wedding</mark>") == 2
    assert "<script>" not in shown.html
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in shown.html
    assert shown._repr_html_() == shown.html
    assert str(shown).count("*wedding*") == 2
    assert "The first 2 of 8 samples." in str(shown)
    assert "\x1b[1;33mwedding\x1b[0m" in shown.text(90, colour=True)


def test_many_conditions_are_narrowed_to_the_baseline_and_the_best():
    frame = completions(labels=6)
    shown = figures.completions_side_by_side(frame, words("weddings"))
    assert shown.columns == ("unsteered", "c2")
    assert "highest mean of 5" in shown.footnote
    roles = frame["label"].map({"unsteered": "unsteered", "c2": "random"}).fillna("steered")
    assert figures.completions_side_by_side(frame.assign(role=roles), words("weddings")).columns == ("unsteered", "c1")
    assert figures.completions_side_by_side(frame, labels=["c5", "c3"]).columns == ("c5", "c3")
    assert "mean 2" in figures.completions_side_by_side(frame, length()).notes[0]


def test_the_terminal_text_keeps_its_width_and_lets_no_control_character_through():
    frame = completions(labels=2, n=2)
    frame["completion"] = ["\x1b[2J wedding\nnext\u202e line", "結婚式 " * 30 + "wedding", "x" * 200, "a " * 90]
    shown = figures.completions_side_by_side(frame, words("weddings"))
    for width in (40, 79, 120):
        text = shown.text(width)
        assert all(_columns(line) <= width for line in text.split("\n") if not line.startswith(("Prompt", "The first")))
    assert "\x1b" not in text
    assert "\\u001b[2J" in text
    assert "\\u202e" in text
    assert text.count("x") > 200 - 1
    with pytest.raises(SteerlensError, match="width = 20"):
        shown.text(20)


def _columns(line):
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def test_side_by_side_refuses_unknown_labels_repeats_and_missing_columns():
    with pytest.raises(SteerlensError, match="'war'"):
        figures.completions_side_by_side(completions(), labels=["war"])
    with pytest.raises(SteerlensError, match="more than one row for label"):
        figures.completions_side_by_side(pd.concat([completions(), completions()]))
    with pytest.raises(SteerlensError, match="missing: sample"):
        figures.completions_side_by_side(completions().drop(columns="sample"))
    with pytest.raises(SteerlensError, match="no 'completion'"):
        figures.completions_side_by_side(completions().assign(completion=None))
