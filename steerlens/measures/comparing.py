"""Methods side by side on the same prompts and samples: success, damage, verdicts, and differences of every two."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import pandas as pd

from steerlens.measures.damage import MARGIN, effects, success
from steerlens.measures.metrics import Metric
from steerlens.measures.pairing import holm, paired_bootstrap
from steerlens.measures.verdicts import verdicts

PAIRS = ["first", "second", "difference", "difference_low", "difference_high", "p"]


def compared_methods(frame: pd.DataFrame, metric: Metric, *, margin: float = MARGIN) -> pd.DataFrame:
    """One row per condition: those of a method, the unsteered one, prompting.

    Args:
        frame: completions with surprise, and columns method ("" for unsteered, "prompting") and setting ("best", "equal
            damage", ""); roles "unsteered", "steered", "random" (one beside each steered condition), "prompting".

    Returns:
        Columns method, setting, those of `effects` (without front and knee), random (success of the random vector
        beside it), verdict, why, more. Verdicts are held to `paired_bootstrap`, corrected for the methods of a setting.
    """
    table = effects(frame, metric.column, metric.kind, margin=margin, better=metric.better)
    named = frame.drop_duplicates("condition").set_index("condition")[["method", "setting"]]
    table = table.drop(columns=["front", "knee"]).join(named, on="condition")
    said: list[pd.DataFrame] = []
    beside: dict[tuple[str, str], float] = {}
    for setting in ("best", "equal damage"):
        mine = frame[(frame["setting"] == setting) | (frame["setting"] == "")]
        if not (mine["role"] == "steered").any():
            continue
        # A random vector belongs to its method, not to whatever has the same layer and coefficient.
        places = {name: place for place, name in enumerate(mine["method"].unique())}
        mine = mine.assign(layer=mine["method"].map(places), coeff=1.0)
        said.append(
            verdicts(mine, metric.column, metric.kind, margin=margin, better=metric.better, compare=paired_bootstrap)
        )
        random = table[(table["role"] == "random") & (table["setting"] == setting)]
        beside |= {(row.method, setting): row.success for row in random.itertuples()}
    words = pd.concat(said).set_index("condition")[["verdict", "why", "more"]]
    table["random"] = [beside.get((row.method, row.setting), float("nan")) for row in table.itertuples()]
    table = table[table["role"] != "random"].join(words, on="condition")
    table[["verdict", "why"]] = table[["verdict", "why"]].fillna("")
    first = ["method", "setting", "role", "layer", "coeff", "n", "success", "success_low", "success_high"]
    return table[[*first, *(name for name in table if name not in first)]].reset_index(drop=True)


def method_differences(frame: pd.DataFrame, metric: Metric, *, margin: float = MARGIN) -> pd.DataFrame:
    """One row per setting and two methods (prompting among them): the difference of their success.

    Columns: setting, first, second, difference (first − second) with difference_low and difference_high (95 %,
    `paired_bootstrap`), p (corrected for the pairs of a setting, Holm 1979).
    """
    data = frame.assign(_success=success(frame, metric.column, metric.kind, margin=margin, better=metric.better))
    kind: Literal["share", "mean"] = metric.kind
    rows = []
    for setting in ("best", "equal damage"):
        mine = data[(data["setting"] == setting) & (data["role"] == "steered") | (data["role"] == "prompting")]
        groups = dict(list(mine.groupby("method", sort=False)))
        if len(groups) < 2:
            continue
        found = [
            (first, second, paired_bootstrap(groups[first], groups[second], "_success", kind))
            for first, second in combinations(groups, 2)
        ]
        for (first, second, one), p in zip(found, holm([one.p_value for *_, one in found]), strict=True):
            rows.append((setting, first, second, one.estimate, one.low, one.high, p))
    return pd.DataFrame(rows, columns=["setting", *PAIRS])
