"""What the rows of compared methods say in words: against unsteered, a random vector, prompting, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from steerlens.experiments.shared import wording

Say = Callable[[float, float, float], str]


def rows_of(frame: pd.DataFrame, metric: str) -> dict[str, Any]:
    """The rows of one metric by method."""
    return {row.method: row for row in frame[frame["metric"] == metric].itertuples()}


def outcome(row: Any, *, wanted: wording.Side) -> str:
    """ "yes", "no" (the reverse) or "not shown", by the interval of the paired difference from unsteered."""
    if math.isnan(row.difference_low):
        return "not shown"
    found = wording.side(row.difference_low, row.difference_high)
    return "not shown" if found == "unclear" else "yes" if found == wanted else "no, the reverse"


def against_controls(rows: dict[str, Any], what: str, say: Say, *, wanted: wording.Side) -> str:
    """A random vector and prompting, each by its difference from unsteered on the same prompts."""
    said = []
    steered = rows["ActAdd"]
    if (random := rows.get("random vector")) is not None:
        told = f"a random vector of equal norm changes {what} by {_difference(random, say)}"
        if outcome(steered, wanted=wanted) == "yes" and outcome(random, wanted=wanted) == "yes":
            told += " too, so part of the effect is that of any push of this size"
        said.append(told)
    if (words := rows.get("prompting")) is not None:
        further = (words.difference - steered.difference) * (1 if wanted == "above" else -1)
        beside = "as good as" if further == 0 else "better than" if further > 0 else "worse than"
        told = f"the phrase in front of the prompt changes {what} by {_difference(words, say)}"
        said.append(f"{told}, which by the estimates alone is {beside} steering")
    return f"On the same prompts, {'; '.join(said)}." if said else ""


def cost(rows: dict[str, Any]) -> str:
    """What steering does to the fluency of the text."""
    steered, base = rows.get("ActAdd"), rows.get("unsteered")
    if steered is None or base is None:
        return ""
    clear = wording.side(steered.difference_low, steered.difference_high)
    told = {"above": "less fluent", "below": "more fluent", "unclear": "not clearly less or more fluent"}[clear]
    return (
        f"The steered text is {told}: its disfluency (perplexity under the unsteered model) is {steered.mean:.3g} "
        f"(95 %: {steered.low:.3g} to {steered.high:.3g}), unsteered {base.mean:.3g}."
    )


def _difference(row: Any, say: Say) -> str:
    return say(row.difference, row.difference_low, row.difference_high)
