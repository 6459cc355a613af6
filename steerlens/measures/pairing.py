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
_FEW_PROMPTS = 5
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


def paired_bootstrap(
    group: pd.DataFrame,
    other: pd.DataFrame,
    column: str,
    kind: Literal["share", "mean"],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """The difference of `column` as `paired_by_sample` takes it, with an interval that other prompts would give too.

    Completions of one prompt are alike. So, of at least `_FEW_PROMPTS` prompts, prompts are drawn with replacement and
    then samples within each; of fewer, samples alone, and the interval speaks of those prompts. It is never narrower
    than that of independent pairs, nor the p-value smaller (a bootstrap of few pairs that agree would know no doubt).
    """
    plain = paired_by_sample(group, other, column, kind)
    if plain.n < 2:
        return plain
    mine, theirs = (one[[*PAIR, column]].dropna().drop_duplicates(PAIR) for one in (group, other))
    both = mine.merge(theirs, on=PAIR, suffixes=("", "_other"))
    both["difference"] = both[column] - both[f"{column}_other"]
    rows = [one.to_numpy(dtype=np.float64) for _, one in both.groupby("prompt", sort=False)["difference"]]
    counts = np.array([len(one) for one in rows])
    table = np.zeros((len(rows), counts.max()))
    for number, one in enumerate(rows):
        table[number, : len(one)] = one
    draw = np.random.default_rng(seed)
    places = np.broadcast_to(np.arange(len(rows)), (resamples, len(rows)))
    if len(rows) >= _FEW_PROMPTS:
        places = draw.integers(0, len(rows), size=(resamples, len(rows)))
    totals = np.zeros(resamples)
    for number in range(len(rows)):  # one prompt of every resample at a time, so that memory stays small
        chosen = places[:, number]
        picked = (draw.random((resamples, table.shape[1])) * counts[chosen][:, None]).astype(int)
        kept = np.arange(table.shape[1]) < counts[chosen][:, None]
        totals += np.where(kept, table[chosen[:, None], picked], 0.0).sum(1)
    means = totals / counts[places].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    side = min((means <= 0).sum(), (means >= 0).sum())
    p_value = min(1.0, 2 * (side + 1) / (resamples + 1))
    return PairedDifference(
        plain.estimate,
        float(np.nanmin([low, plain.low])),
        float(np.nanmax([high, plain.high])),
        float(np.nanmax([p_value, plain.p_value])),
        plain.n,
        plain.level,
        "bootstrap over prompts and samples" if len(rows) >= _FEW_PROMPTS else "bootstrap over samples",
    )


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
