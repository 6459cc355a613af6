"""Reliability of steering, prompt by prompt: slopes in the coefficient, wrong ways, turns, spread, generalisation.

A frame of values has one row per direction, prompt, coefficient and sample: direction, split ("in distribution", "held
out"), number (of the prompt), prompt, coeff, sample, value. A direction is the vector itself or a paraphrase of it.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlens.measures.metrics import Better
from steerlens.measures.statistics import mean_interval, paired_difference, wilson_interval

TURN = 0.05
"""Of the range of a prompt's values: a fall by less is no turn (bfloat16 alone moves logits by as much)."""

_KEYS = ["direction", "split", "number", "prompt"]


def by_prompt(values: pd.DataFrame, *, better: Better = "higher") -> pd.DataFrame:
    """One row per direction and prompt: how steering acts on that very prompt.

    Returns:
        Columns: direction, split, number, prompt, n (samples); slope (least squares of the value in the coefficient:
        the steerability of Tan et al. 2024, arXiv 2407.12404) with slope_low and slope_high (95 % over samples; NaN for
        one sample); effect (value at the largest coefficient less that at 0); wrong (the slope goes the other way than
        `better` says: "anti-steerable"); surely_wrong (so does all of its interval); turns (the coefficient beyond
        which the value goes back, by more than `TURN` of its range, and more than samples explain; NaN where it is
        monotonic). NaN values are left out, sample by sample.
    """
    way = 1 if better == "higher" else -1
    rows = []
    for key, group in values.groupby(_KEYS, sort=False):
        table = group.pivot(index="sample", columns="coeff", values="value").sort_index(axis=1)
        table = table.dropna()
        coeffs, seen = table.columns.to_numpy(dtype=float), table.to_numpy(dtype=float)
        row = dict(zip(_KEYS, key, strict=True)) | {"n": len(table)}
        slopes = slopes_of(coeffs, seen)
        interval = mean_interval(slopes)
        effect = seen[:, -1] - seen[:, list(coeffs).index(0.0)] if len(seen) else np.array([])
        known = interval.mean if len(seen) else math.nan
        one = len(seen) == 1
        row |= {"slope": known, "slope_low": interval.low, "slope_high": interval.high}
        row |= {"effect": float(effect.mean()) if len(effect) else math.nan}
        row["wrong"] = bool(way * known < 0)
        row["surely_wrong"] = row["wrong"] if one else bool(max(way * interval.low, way * interval.high) < 0)
        row["turns"] = turning_point(coeffs, seen)
        rows.append(row)
    return pd.DataFrame(rows, columns=[*_KEYS, *_MEASURED])


_MEASURED = ["n", "slope", "slope_low", "slope_high", "effect", "wrong", "surely_wrong", "turns"]


def slopes_of(
    coeffs: Float[np.ndarray, " coeff"], values: Float[np.ndarray, "sample coeff"]
) -> Float[np.ndarray, " sample"]:
    """The least-squares slope of each row of values in the coefficients."""
    centred = coeffs - coeffs.mean()
    return values @ (centred / (centred**2).sum())


def turning_point(coeffs: Float[np.ndarray, " coeff"], values: Float[np.ndarray, "sample coeff"]) -> float:
    """The coefficient beyond which the mean value goes back against its own slope; NaN where it does not.

    It goes back if it falls from its highest point so far by more than `TURN` of its range, and, of several samples,
    if the paired difference between the two coefficients is below 0 at the 5 % level, corrected for how many follow.
    """
    if not len(values):
        return math.nan
    means = values.mean(0)
    up = 1.0 if slopes_of(coeffs, means[None])[0] >= 0 else -1.0
    risen, least = up * means, TURN * np.ptp(means)
    for place in range(1, len(coeffs)):
        top = int(np.argmax(risen[:place]))
        if risen[top] - risen[place] <= least:
            continue
        if len(values) > 1:
            fall = paired_difference(up * values[:, place], up * values[:, top])
            if not fall.p_value < 0.05 / (len(coeffs) - 1):
                continue
        return float(coeffs[top])
    return math.nan


def by_direction(prompts: pd.DataFrame, *, better: Better = "higher") -> pd.DataFrame:
    """One row per direction and split, over prompts: `prompts` as `by_prompt` gives them.

    Returns:
        Columns: direction, split, prompts; slope with slope_low and slope_high (mean over prompts, 95 % Student-t), sd
        (of slopes over prompts), wrong with wrong_low and wrong_high (share of prompts steered the wrong way, Wilson),
        surely_wrong (share), turning (share of prompts that are not monotonic in the coefficient).
    """
    rows = []
    for (direction, split), group in prompts.groupby(["direction", "split"], sort=False):
        known = group[group["slope"].notna()]
        slope, wrong = mean_interval(known["slope"]), wilson_interval(int(known["wrong"].sum()), len(known))
        rows.append(
            {
                "direction": direction,
                "split": split,
                "prompts": len(known),
                "slope": slope.mean,
                "slope_low": slope.low,
                "slope_high": slope.high,
                "sd": float(known["slope"].std(ddof=1)) if len(known) > 1 else math.nan,
                "wrong": wrong.mean,
                "wrong_low": wrong.low,
                "wrong_high": wrong.high,
                "surely_wrong": float(known["surely_wrong"].mean()) if len(known) else math.nan,
                "turning": float(known["turns"].notna().mean()) if len(known) else math.nan,
            }
        )
    return pd.DataFrame(rows)


def paraphrase_spread(prompts: pd.DataFrame) -> pd.DataFrame:
    """One row per prompt: how much its slope depends on how the pair is put.

    Returns:
        Columns: number, prompt, split, directions (how many), slope (mean over them), sd (over them; NaN for one),
        agree (share of the directions whose slope has the sign of the mean).
    """
    rows = []
    for (number, prompt, split), group in prompts.groupby(["number", "prompt", "split"], sort=False):
        slopes = group["slope"].dropna()
        mean = float(slopes.mean()) if len(slopes) else math.nan
        rows.append(
            {
                "number": number,
                "prompt": prompt,
                "split": split,
                "directions": len(slopes),
                "slope": mean,
                "sd": float(slopes.std(ddof=1)) if len(slopes) > 1 else math.nan,
                "agree": float((np.sign(slopes) == np.sign(mean)).mean()) if len(slopes) else math.nan,
            }
        )
    return pd.DataFrame(rows)
