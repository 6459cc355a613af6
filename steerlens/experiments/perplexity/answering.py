"""The answer of the experiment `perplexity` in words, from its main rows."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from steerlens.experiments.shared import wording

_IS = {"above": "less likely", "below": "more likely", "unclear": "neither clearly more nor less likely"}


def likelier(row: Any) -> str:
    """What a ratio with its interval says of text, in words."""
    return _IS[_side(row)]


def answered(
    steered: dict[str, Any], control: dict[str, Any], prompted: dict[str, Any], sweep: pd.DataFrame, where: str
) -> list[str]:
    """The paragraphs of the answer.

    Args:
        steered, control, prompted: the rows of ActAdd, of the random vector and of the phrase in front, by group
            ("related", "unrelated"); groups without documents are missing.
        sweep: all rows of ActAdd for related text.
        where: layer and coefficient in words.
    """
    related, other = steered.get("related"), steered.get("unrelated")
    if related is None:
        return ["No answer: none of the documents is on the topic, so nothing can be said of such text."]
    said = [_first(related, other, where)]
    if control:
        said.append(f"A random vector of equal norm in its place: {_both(control)}.")
    if prompted:
        better = _is_lower(related, prompted.get("related"))
        than = {True: "Steering does better than prompting", False: "Prompting does better than steering"}
        told = than.get(better, "Prompting and steering do not clearly differ") if better is not None else "Prompting"
        said.append(f"{told}: with the phrase in front of every sentence, {_both(prompted)}.")
    said += _layers(sweep)
    return said


def _first(related: Any, other: Any, where: str) -> str:
    """The short answer."""
    on_topic = (
        f"at {where}, the perplexity of text on the topic is {_ratio(related)} the unsteered one, "
        f"so it becomes {likelier(related)}"
    )
    if other is None:
        return f"{_sentence(on_topic)}. No document is without such words, so nothing can be said of other text."
    verdict = {
        ("below", "unclear"): "Yes",
        ("below", "above"): "In part: text on the topic gains, but other text suffers",
        ("below", "below"): "In part: text on the topic becomes more likely, but so does other text",
        ("above", "unclear"): "No",
        ("above", "above"): "No, neither",
        ("above", "below"): "No, the reverse",
        ("unclear", "unclear"): "Not shown",
        ("unclear", "above"): "No: only other text changes, for the worse",
        ("unclear", "below"): "Not shown: only other text changes",
    }[(_side(related), _side(other))]
    rest = f"that of other text is {_ratio(other)} the unsteered one ({likelier(other)})"
    return f"{verdict}. {_sentence(on_topic)}; {rest}."


def _layers(sweep: pd.DataFrame) -> list[str]:
    rows = sweep.dropna(subset=["ratio"])
    if rows[["layer", "coeff"]].drop_duplicates().shape[0] < 2:
        return []
    best = rows.loc[rows["ratio"].idxmin()]
    if _side(best) != "below":
        return [
            f"None of the {len(rows)} settings of layer and coefficient makes such text clearly more likely; the "
            f"lowest ratio is {_ratio(best)} (layer {best['layer']}, coefficient {best['coeff']:g})."
        ]
    return [
        f"Of {len(rows)} settings of layer and coefficient, the lowest ratio is {_ratio(best)}, at layer "
        f"{best['layer']} and coefficient {best['coeff']:g}; it was picked after the fact, so it is too good by chance."
    ]


def _both(rows: dict[str, Any]) -> str:
    names = {"related": "text on the topic", "unrelated": "other text"}
    return ", ".join(
        f"{names[group]} {_ratio(rows[group])} ({likelier(rows[group])})" for group in names if group in rows
    )


def _ratio(row: Any) -> str:
    return wording.ratio(row.ratio, row.low, row.high)


def _side(row: Any) -> wording.Side:
    return "unclear" if math.isnan(row.low) else wording.side(row.low, row.high, of=1.0)


def _is_lower(one: Any, other: Any) -> bool | None:
    """Whether one ratio is clearly below the other (intervals that do not meet), above it (False), or neither."""
    if other is None or math.isnan(one.low) or math.isnan(other.low):
        return None
    if one.high < other.low:
        return True
    return False if one.low > other.high else None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
