"""The answer of the experiment `topic` in words, from a sweep."""

from __future__ import annotations

import pandas as pd

from steerlens.experiments.shared import wording
from steerlens.measures.findings import differing
from steerlens.measures.summaries import best_found, control_of
from steerlens.measures.verdicts import BREAKS, WORKS
from steerlens.runs.swept import Sweep


def answered(name: str, swept: Sweep, metric: str) -> list[str]:
    """The paragraphs of a topic's answer."""
    rows = swept.summary[swept.summary["metric"] == metric]
    one = next(one for one in swept.metrics if one.name == metric)
    found = differing(swept.frame, one.column, one.kind, better=one.better)
    best, base, tried = best_found(rows, found), swept.baseline(metric), int((rows["role"] == "steered").sum())
    random = control_of(rows, best, "random")
    beside = f"unsteered it is {wording.share(base['mean'], base['low'], base['high'])}"
    if random is not None:
        beside += f", with a random vector {wording.share(random['mean'], random['low'], random['high'])}"
    at = f"layer {best['layer']}, coefficient {best['coeff']:g}"
    many = wording.share(best["mean"], best["low"], best["high"])
    if not found:
        against = "unsteered and from its random vector" if random is not None else "unsteered"
        return [
            f"{name.capitalize()}: no effect found. No setting of {tried} differs from {against} after correction for "
            f"that many; the largest share of completions with a related word is {many} ({at}), and {beside}."
        ]
    told = swept.judged(metric)
    verdict, why = ("", "") if told is None else told.loc[best["condition"], ["verdict", "why"]]
    short = "in part, for the text breaks" if verdict == BREAKS else "yes"
    said = [
        f"{name.capitalize()}: {short}. At {at}, {many} of the completions hold a related word; {beside}.",
        f"{_layers(rows, found, alone=random is None)} The best of {tried} settings was picked "
        "after the fact, so its share is too high by chance.",
    ]
    if verdict:
        end = "" if verdict == WORKS else " A word of the topic alone is no proof of a text on it."
        said.append(
            f"Counting only completions that are fluent as well, the verdict on it is “{verdict}” ({why}).{end}"
        )
    return said


def _layers(rows: pd.DataFrame, found: list[int], *, alone: bool) -> str:
    told = []
    for coeff, part in rows[rows["condition"].isin(found)].groupby("coeff", sort=True):
        layers = sorted(int(layer) for layer in part["layer"])
        of = rows[(rows["role"] == "steered") & (rows["coeff"] == coeff)]["layer"].nunique()
        told.append(f"at coefficient {coeff:g} layer{'s' * (len(layers) > 1)} {_ranges(layers)} (of {of} tried)")
    than = "unsteered" if alone else "unsteered and than with a random vector"
    return f"More often than {than}, corrected for all that were tried: {'; '.join(told)}."


def _ranges(numbers: list[int]) -> str:
    """Numbers with runs shortened: "0, 2–5"."""
    runs: list[list[int]] = []
    for one in numbers:
        if runs and one == runs[-1][-1] + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
