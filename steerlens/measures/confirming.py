"""One condition and its controls on completions that it was not chosen on: shares, differences, a verdict."""

from __future__ import annotations

import math

import pandas as pd

from steerlens.measures.damage import MARGIN, effects, success
from steerlens.measures.metrics import Metric
from steerlens.measures.pairing import paired_bootstrap
from steerlens.measures.verdicts import verdicts

_ORDER = ["steered", "unsteered", "random", "shuffled", "negated", "prompting"]


def confirmed_table(frame: pd.DataFrame, metric: Metric, *, margin: float = MARGIN) -> pd.DataFrame:
    """One row per condition, the steered one first: what it did, and by how much the steered one did more.

    Args:
        frame: completions with surprise of one steered condition, the unsteered model, and any controls.

    Returns:
        Columns of `effects` (without front and knee), and for each but the steered one: difference (of success of the
        steered condition from this one's, paired) with difference_low, difference_high (95 %, `paired_bootstrap`) and
        p.
    """
    table = effects(frame, metric.column, metric.kind, margin=margin, better=metric.better)
    data = frame.assign(_success=success(frame, metric.column, metric.kind, margin=margin, better=metric.better))
    steered = data[data["role"] == "steered"]
    found = []
    for number in table["condition"]:
        other = data[data["condition"] == number]
        if other["role"].iloc[0] == "steered":
            found.append((math.nan,) * 4)
            continue
        one = paired_bootstrap(steered, other, "_success", metric.kind)
        found.append((one.estimate, one.low, one.high, one.p_value))
    names = ["difference", "difference_low", "difference_high", "p"]
    table[names] = pd.DataFrame(found, columns=names, index=table.index)
    order = table["role"].map({role: place for place, role in enumerate(_ORDER)})
    return table.loc[order.sort_values(kind="stable").index].drop(columns=["front", "knee"]).reset_index(drop=True)


def confirmed_verdict(frame: pd.DataFrame, metric: Metric, *, margin: float = MARGIN) -> pd.Series:
    """The row of `verdicts` for the one steered condition, its comparisons by `paired_bootstrap`."""
    said = verdicts(frame, metric.column, metric.kind, margin=margin, better=metric.better, compare=paired_bootstrap)
    return said.iloc[0]
