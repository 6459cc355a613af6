"""Conditions compared completion by completion, and p-values corrected for how many conditions were tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlens.measures.statistics import PairedDifference, paired_difference

PAIR = ["prompt", "sample"]
"""What two completions share that drew the same random numbers."""
LEVEL = 0.05
"""Of the corrected p-value below which a difference is taken for real."""


def paired_by_sample(
    group: pd.DataFrame, other: pd.DataFrame, column: str, kind: Literal["share", "mean"]
) -> PairedDifference:
    """The difference of `column` over completions of the same prompt and sample number that both have a value for.

    NaN, with n = 0, where there is no such pair. A prompt that was given twice counts once.
    """
    mine, theirs = (one[[*PAIR, column]].dropna().drop_duplicates(PAIR) for one in (group, other))
    both = mine.merge(theirs, on=PAIR, suffixes=("", "_other"))
    if both.empty:
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, 0, 0.95, "none")
    return paired_difference(both[column], both[f"{column}_other"], kind=kind)


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " test"]:
    """P-values corrected for their number (Holm 1979): the chance of any false alarm among them is at most the level.

    NaN stays NaN and counts as a test that was made.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given)  # NaN last
    factors = np.arange(given.size, 0, -1)
    corrected = np.full(given.size, np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return corrected
