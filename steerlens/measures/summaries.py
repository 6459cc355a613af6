"""Reading a summary frame: the best condition, the unsteered one, a condition's control, numbers as people write them.

A summary frame has one row per condition and metric: condition, role ("unsteered", "steered", and those of controls),
layer, coeff, metric, kind, mean, low, high; where it has the column better ("higher", "lower"), the best goes by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from steerlens.errors import SteerlensError


def best_condition(rows: pd.DataFrame) -> pd.Series:
    """Of one metric's rows, that of the steered condition with the largest mean (the smallest, if lower is better).

    Raises:
        SteerlensError: no steered condition, or none with a number.
    """
    steered = rows[rows["role"] == "steered"]
    if steered["mean"].isna().all():
        raise SteerlensError(
            "no steered condition has a number for this metric (it is NaN for every completion), so none is best; "
            "give another metric"
        )
    lower = "better" in steered and (steered["better"] == "lower").all()
    return steered.loc[steered["mean"].idxmin() if lower else steered["mean"].idxmax()]


def best_found(rows: pd.DataFrame, found: Sequence[int]) -> pd.Series:
    """Of one metric's rows, that of the best among the conditions in which something was found (of all, if nothing)."""
    return best_condition(rows[rows["condition"].isin(found)] if found else rows)


def unsteered(rows: pd.DataFrame) -> pd.Series:
    """Of one metric's rows, that of the unsteered model."""
    return rows[rows["role"] == "unsteered"].iloc[0]


CONTROLS = {
    "random": "random vector of equal norm",
    "shuffled": "shuffled contrast of equal norm",
    "negated": "negated vector",
    "prompting": "prompting",
}
"""Roles of controls, and what people call them."""


def is_control_of(rows: pd.DataFrame, row: pd.Series, role: str) -> pd.Series:
    """True for rows of the control with this role beside the condition of `row`: same layer, same coefficient (negated,
    for the negated vector); words stand beside every condition."""
    same = rows["role"] == role
    if role == "prompting":
        return same
    coeff = -row["coeff"] if role == "negated" else row["coeff"]
    return same & (rows["layer"] == row["layer"]).fillna(False).astype(bool) & (rows["coeff"] == coeff)


def control_of(rows: pd.DataFrame, row: pd.Series, role: str = "random") -> pd.Series | None:
    """Of one metric's rows, that of a control beside the steered condition `row` (of several wordings, the best); None
    where there is none."""
    found = rows[is_control_of(rows, row, role)]
    if found.empty or found["mean"].isna().all():
        return None
    return best_condition(found.assign(role="steered")) if role == "prompting" else found.iloc[0]


def subject(settings: Mapping[str, Any], *, most: int = 2) -> str:
    """What a run was about, on one line: a pair, or its vectors' titles, equal ones once and no more than `most`."""
    what = settings.get("what", "vectors")
    if isinstance(what, str):
        return what
    titles = list(dict.fromkeys(map(str, what)))
    more = len(titles) - most
    return ", ".join(titles[:most]) + (f" and {more} more" if more > 0 else "")


def number(row: pd.Series) -> str:
    """The mean of a row as people read it."""
    return f"{row['mean']:.1%}" if row["kind"] == "share" else f"{row['mean']:.3g}"


def interval(row: pd.Series) -> str:
    """The 95 % interval of a row as people read it; nothing where there is none (a mean of one)."""
    if row["low"] != row["low"]:
        return ""
    if row["kind"] == "share":
        return f"{row['low']:.1%} to {row['high']:.1%}"
    return f"{row['low']:.3g} to {row['high']:.3g}"
