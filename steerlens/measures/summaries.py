"""Reading a summary frame: the best condition, the unsteered one, a condition's control, numbers as people write them.

A summary frame has one row per condition and metric: condition, role ("unsteered", "steered", "random"), layer, coeff,
metric, kind, mean, low, high.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from steerlens.errors import SteerlensError


def best_condition(rows: pd.DataFrame) -> pd.Series:
    """Of one metric's rows, that of the steered condition with the largest mean.

    Raises:
        SteerlensError: no steered condition, or none with a number.
    """
    steered = rows[rows["role"] == "steered"]
    if steered["mean"].isna().all():
        raise SteerlensError(
            "no steered condition has a number for this metric (it is NaN for every completion), so none is best; "
            "give another metric"
        )
    return steered.loc[steered["mean"].idxmax()]


def unsteered(rows: pd.DataFrame) -> pd.Series:
    """Of one metric's rows, that of the unsteered model."""
    return rows[rows["role"] == "unsteered"].iloc[0]


def control_of(rows: pd.DataFrame, row: pd.Series) -> pd.Series | None:
    """Of one metric's rows, that of the random vector beside the steered condition `row`; None without controls."""
    same = (rows["role"] == "random") & (rows["layer"] == row["layer"]) & (rows["coeff"] == row["coeff"])
    return rows[same].iloc[0] if same.any() else None


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
