"""What is said of compared methods: metrics with intervals and paired differences, the tuning grid, tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlens.figures.tradeoff import effect_against_damage
from steerlens.measures.statistics import bootstrap_interval, mean_interval, paired_difference, wilson_interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

METHODS = ("unsteered", "ActAdd", "prompting", "random vector")
"""In the order of tables and figures."""

Kind = Literal["share", "mean", "perplexity"]


def summarise(
    frame: pd.DataFrame, metrics: Mapping[str, tuple[str, Kind]], *, group: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """One row per group × method × metric, with 95 % intervals and the paired difference from the unsteered model.

    Several samples of a prompt are averaged first: prompts are what was drawn. Intervals: Wilson for shares of single
    samples, Student-t for means, bootstrap over prompts for perplexities, whose mean hangs on a few. Differences pair
    each prompt with itself (Bonett-Price and McNemar, paired t, bootstrap and sign flips); NaN for the unsteered rows.

    Args:
        metrics: name → column of `frame` and kind.
    """
    rows = []
    groups = [("", frame)] if group is None else list(frame.groupby(group, sort=False))
    for value, part in groups:
        base = part[part["method"] == "unsteered"]
        for method in [one for one in METHODS if (part["method"] == one).any()]:
            own = part[part["method"] == method]
            for name, (column, kind) in metrics.items():
                mine = own.groupby("prompt_number")[column].mean()
                if mine.isna().all() and column == "relevance":
                    continue
                single = kind == "share" and bool(mine.dropna().isin((0.0, 1.0)).all())
                interval = _interval(mine.dropna().to_numpy(), kind, single, seed)
                both = pd.concat([mine, base.groupby("prompt_number")[column].mean()], axis=1, join="inner").dropna()
                row = {
                    "method": method,
                    "layer": own["layer"].iloc[0] if method in ("ActAdd", "random vector") else None,
                    "coeff": own["coeff"].iloc[0],
                    "metric": name,
                    "kind": "share" if kind == "share" else "mean",
                    "n": int(interval.n),
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    **_difference(both, method, kind, seed),
                }
                rows.append(row if group is None else {group: value, **row})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def numbers_table(summary: pd.DataFrame, *, group: str) -> pd.DataFrame:
    """The frame of `summarise` as people read it: one row per group × method, each metric with its interval, as text.

    A ↑ or ↓ says that the interval of the paired difference from the unsteered model leaves 0 out.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in summary.itertuples():
        row = rows.setdefault((getattr(one, group), one.method), {group: getattr(one, group), "method": one.method})
        if "layer, coefficient" not in row:
            row["layer, coefficient"] = "–" if pd.isna(one.layer) else f"{one.layer}, {one.coeff:g}"
        if one.kind == "share":
            text = f"{one.mean:.1%} ({100 * one.low:.1f} to {100 * one.high:.1f})"
        else:
            digits = 1 if one.mean >= 3 else 3
            text = f"{one.mean:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"
        clear = one.difference_low > 0 or one.difference_high < 0
        row[one.metric] = text.replace("-", "−") + (" ↑" if clear and one.difference > 0 else " ↓" if clear else "")
    return pd.DataFrame(list(rows.values()))


def tuning_table(frame: pd.DataFrame, kind: Literal["share", "mean"], limit: float | None) -> pd.DataFrame:
    """The validation prompts, one row per condition: effect, damage, whether it is allowed, which one is chosen.

    Args:
        kind: "share" where every `hit` is 0 or 1.
        limit: the largest perplexity allowed, as a multiple of the unsteered model's; None for any.
    """
    rows = []
    for way, part in frame.groupby("way", sort=True):
        by_prompt = part.groupby("prompt_number")[["hit", "nats"]].mean()
        hits = by_prompt["hit"].to_numpy()
        single = kind == "share" and bool(np.isin(hits, (0.0, 1.0)).all())
        got = _interval(hits, kind, single, 0)
        cost = mean_interval(by_prompt["nats"].dropna().to_numpy())
        first = part.iloc[0]
        rows.append(
            {
                "label": first["label"],
                "role": "unsteered" if way == 0 else "steered",
                "layer": first["layer"],
                "coeff": first["coeff"],
                "n": int(got.n),
                "effect": got.mean,
                "effect_low": got.low,
                "effect_high": got.high,
                "damage": math.exp(cost.mean),
                "damage_low": math.exp(cost.low),
                "damage_high": math.exp(cost.high),
            }
        )
    table = pd.DataFrame(rows).astype({"layer": "Int64"})
    ratio = table["damage"] / table["damage"].iloc[0]
    steered = table["role"] == "steered"
    table["allowed"] = (ratio <= limit) if limit is not None else True
    candidates = table[steered & table["allowed"]]
    # Where all exceed the limit, the least harmful is taken: a table must have something in its place.
    best = candidates["effect"].idxmax() if len(candidates) else table[steered]["damage"].idxmin()
    table["chosen"] = table.index == best
    return table


def tuning_figure(tuning: pd.DataFrame, *, effect_title: str, title: str, share: bool) -> go.Figure:
    """Effect against disfluency of every layer and coefficient on the validation prompts, disfluency on a log axis."""
    figure = effect_against_damage(
        tuning.reset_index(drop=True),
        effect_title=effect_title,
        damage_title="disfluency (perplexity, geometric mean)",
        title=title,
    )
    # A coefficient too strong makes text a hundred times as disfluent; on a plain axis all others would be one point.
    low, high = tuning["damage_low"].min() / 1.05, tuning["damage_high"].max() * 1.05
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    ticks = [step * 10**power for power in range(8) for step in steps if low <= step * 10**power <= high]
    figure.update_xaxes(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    figure.update_layout(coloraxis_colorbar_title_side="top")  # below, it would touch the layers' numbers
    if share:
        figure.update_yaxes(tickformat=",.0%")
    one = tuning[tuning["chosen"]].iloc[0]
    figure.add_annotation(
        x=math.log10(one["damage"]), y=one["effect"], text="chosen", showarrow=True, ax=34, ay=-26, arrowhead=0
    )
    return figure


def texts_table(frame: pd.DataFrame, *, n: int = 6) -> pd.DataFrame:
    """The first `n` prompts with the completions of every method beside each other, as they came."""
    some = frame[(frame["sample"] == 0) & frame["prompt_number"].isin(sorted(frame["prompt_number"].unique())[:n])]
    wide = some.pivot(index=["prompt_number", "prompt"], columns="method", values="completion").reset_index(level=1)
    return wide[["prompt", *(one for one in METHODS if one in wide.columns)]].reset_index(drop=True)


def _interval(values: NDArray[np.float64], kind: Kind, single: bool, seed: int) -> Any:
    if kind == "share" and single:
        return wilson_interval(float(values.sum()), values.size)
    return bootstrap_interval(values, seed=seed) if kind == "perplexity" else mean_interval(values)


def _difference(both: pd.DataFrame, method: str, kind: Kind, seed: int) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high", "p_value")
    if method == "unsteered" or both.empty:
        return dict.fromkeys(names, math.nan)
    after, before = both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()
    binary = kind == "share" and bool(np.isin(both.to_numpy(), (0.0, 1.0)).all())
    found = paired_difference(
        after,
        before,
        kind="share" if binary else "mean",
        method="bootstrap" if kind == "perplexity" else "analytic",
        seed=seed,
    )
    return dict(zip(names, (found.estimate, found.low, found.high, found.p_value), strict=True))
