"""Effect and damage of conditions side by side: how often on topic, and at what cost in fluency."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steerlens.errors import SteerlensError
from steerlens.measures.findings import differing
from steerlens.measures.measuring import lost, measured, texts_of
from steerlens.measures.metrics import Better, repetition
from steerlens.measures.statistics import mean_interval, metric_interval, pareto_front

MARGIN = 1.0
"""Nats per token by which a fluent completion may be more surprising than unsteered ones are on average."""

_KEYS = ["condition", "label", "role", "layer", "coeff", "placement"]


def fluent(frame: pd.DataFrame, *, margin: float = MARGIN) -> Bool[np.ndarray, " completion"]:
    """Whether each completion is at most `margin` nats per token above the unsteered mean of its prompt.

    `frame`: completions with columns role, prompt and surprise. A completion without a token is not fluent: there is
    no text.

    Raises:
        SteerlensError: no column surprise, a prompt without unsteered completions.
    """
    if "surprise" not in frame:
        raise SteerlensError("the completions have no column 'surprise'; sample them with surprise=True (damage=True)")
    unsteered = frame[frame["role"] == "unsteered"]
    limit = frame["prompt"].map(unsteered.groupby("prompt")["surprise"].mean())
    # Unsteered text of no token at all has no surprise. Then there is no fluency to compare with: nothing is fluent.
    empty = frame["completion"] == "" if "completion" in frame else pd.Series(False, frame.index)
    silent = empty[unsteered.index].groupby(unsteered["prompt"]).all()
    without = limit.isna() & ~frame["prompt"].isin(silent.index[silent])
    if without.any():
        lost = frame.loc[without, "prompt"].iloc[0]
        raise SteerlensError(f"nothing unsteered to compare with for the prompt {lost!r:.60}; keep the baseline")
    return (frame["surprise"] <= limit + margin).to_numpy()


def success(
    frame: pd.DataFrame,
    metric: str,
    kind: Literal["share", "mean"],
    *,
    margin: float = MARGIN,
    better: Better = "higher",
) -> pd.Series:
    """What counts as success of each completion: a share's 1 (or 0, where lower is better) only where the text is
    fluent too; a mean as it is."""
    if kind == "mean":
        return frame[metric]
    return (frame[metric] if better == "higher" else 1 - frame[metric]) * fluent(frame, margin=margin)


def effects(
    frame: pd.DataFrame,
    metric: str,
    kind: Literal["share", "mean"],
    *,
    margin: float = MARGIN,
    better: Better = "higher",
) -> pd.DataFrame:
    """One row per condition: the effect, its damage, and both together, with 95 % intervals.

    Args:
        frame: completions as `sweep` gives them, with column surprise.
        metric, kind: the column of the effect, and whether it is a share or a mean.
        margin: see `fluent`.
        better: which way of the metric is success.

    Returns:
        Columns: condition, label, role, layer, coeff, placement, n; effect (of `metric`); surprise (nats per token
        under the unsteered model) and extra_surprise (above the unsteered mean); repetition; ended (share that reached
        end of text); fluent (share); success (on topic AND fluent; for a mean metric the metric), each of effect,
        surprise, success with _low and _high; front and knee (steered conditions only, see `front_and_knee`; there is
        no knee among conditions that do not differ from their controls). NaN where steering overflowed the model.
    """
    gone = lost(frame)
    data = frame.assign(
        _fluent=pd.Series(fluent(frame, margin=margin), frame.index).astype(float).mask(gone),
        _success=success(frame, metric, kind, margin=margin, better=better),
        _repetition=measured(repetition(), texts_of(frame)),
        _ended=frame["finished"].astype(float).mask(gone),
    )
    rows = []
    for key, group in data.groupby(_KEYS, sort=False, dropna=False):
        row: dict[str, object] = dict(zip(_KEYS, key, strict=True)) | {"n": len(group)}
        for name, interval in (
            ("effect", metric_interval(group[metric], kind)),
            ("surprise", mean_interval(group["surprise"], nan="omit")),
            ("success", metric_interval(group["_success"], kind)),
        ):
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row |= {
            "repetition": group["_repetition"].mean(),
            "ended": group["_ended"].mean(),
            "fluent": group["_fluent"].mean(),
        }
        rows.append(row)
    table = pd.DataFrame(rows).astype({"layer": "Int64"})
    base = table.loc[table["role"] == "unsteered", "surprise"]
    table["extra_surprise"] = table["surprise"] - (base.iloc[0] if len(base) else np.nan)
    steered = (table["role"] == "steered").to_numpy()
    table["front"], table["knee"] = False, False
    if steered.any():
        way = 1 if better == "higher" else -1
        real = table["condition"].isin(differing(frame, metric, kind, better=better)).to_numpy()[steered]
        gain, cost = way * table["effect"].to_numpy()[steered], table["surprise"].to_numpy()[steered]
        front, knee = front_and_knee(gain, cost, real=real)
        table.loc[steered, "front"], table.loc[steered, "knee"] = front, knee
    return table


def front_and_knee(
    effect: Float[np.ndarray, " condition"],
    damage: Float[np.ndarray, " condition"],
    *,
    real: Bool[np.ndarray, " condition"] | None = None,
) -> tuple[Bool[np.ndarray, " condition"], Bool[np.ndarray, " condition"]]:
    """The Pareto front of effect against damage, and its knee: the point farthest above the line between its ends.

    Both axes are scaled to the front's own range. A front of one or two points has its knee where the effect is
    largest for its damage: at the first point that reaches the largest effect.

    Args:
        real: which conditions have an effect at all: the knee is one of those, or there is none. By default all.
    """
    front = pareto_front(effect, damage)
    knee = np.zeros(front.size, dtype=bool)
    on = np.flatnonzero(front)
    allowed = np.ones(on.size, dtype=bool) if real is None else real[on]
    if not allowed.any():
        return front, knee
    gain, cost = effect[on], damage[on]
    width, height = np.ptp(cost), np.ptp(gain)
    largest = on[np.argmax(np.where(allowed, gain, -np.inf))]
    if width == 0 or height == 0:
        knee[largest] = True
        return front, knee
    above = np.where(allowed, (gain - gain.min()) / height - (cost - cost.min()) / width, -np.inf)
    # The ends of the chord lie at 0; where nothing rises above it, the largest effect is the answer.
    knee[on[np.argmax(above)] if above.max() > 0 else largest] = True
    return front, knee
