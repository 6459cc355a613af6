"""Whether a sweep found anything: which steered conditions differ from their controls after correction for all that
were tried. The largest of many means is large by chance alone; this is what to ask before it is called the best."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from steerlens.measures.metrics import Better
from steerlens.measures.pairing import LEVEL, PAIR, holm, paired_by_sample

NOTHING = "no effect found"


def differing(
    frame: pd.DataFrame, metric: str, kind: Literal["share", "mean"], *, better: Better | None = None
) -> list[int]:
    """The numbers of the steered conditions in which the metric differs from its controls.

    That is from the unsteered completions and, where there are any, from those with the random vector of the same
    layer and coefficient: paired by prompt and sample number, each at the 5 % level corrected for the number of
    conditions (Holm 1979).

    Args:
        frame: one row per completion: condition, role ("unsteered", "steered", "random"), layer, coeff, prompt, sample
            and the column `metric`.
        better: count only those that differ this way from unsteered; by default either way.
    """
    data = frame[["condition", "role", "layer", "coeff", *PAIR, metric]].dropna(subset=[metric])
    base, random = data[data["role"] == "unsteered"], data[data["role"] == "random"]
    groups = dict(list(data[data["role"] == "steered"].groupby("condition", sort=False)))
    if not groups or base.empty:
        return []
    gains = [paired_by_sample(rows, base, metric, kind) for rows in groups.values()]
    from_base = holm([one.p_value for one in gains])
    wanted = [better is None or one.estimate * (1 if better == "higher" else -1) > 0 for one in gains]
    found = {number for number, p, right in zip(groups, from_base, wanted, strict=True) if p < LEVEL and right}
    if len(random):
        controls = dict(list(random.groupby(["layer", "coeff"], dropna=False)))
        own = [controls.get((rows["layer"].iloc[0], rows["coeff"].iloc[0])) for rows in groups.values()]
        pairs = zip(groups.values(), own, strict=True)
        from_random = holm(
            [float("nan") if one is None else paired_by_sample(rows, one, metric, kind).p_value for rows, one in pairs]
        )
        found &= {
            number
            for number, one, p in zip(groups, own, from_random, strict=True)
            if one is None or p < LEVEL  # (without a control of its own, that from unsteered has to do)
        }
    return [int(number) for number in groups if number in found]
