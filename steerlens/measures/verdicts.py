"""Verdicts: what a sweep's numbers say about each condition, in words, corrected for the number tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import pandas as pd

from steerlens.measures.damage import MARGIN, effects, fluent, success
from steerlens.measures.findings import NOTHING
from steerlens.measures.measuring import lost
from steerlens.measures.metrics import Better
from steerlens.measures.pairing import LEVEL, PAIR, holm, paired_by_sample
from steerlens.measures.statistics import PairedDifference
from steerlens.measures.summaries import CONTROLS, is_control_of

WORKS = "works"
LESS_THAN_PROMPTING = "works, but less than prompting"
NO_BETTER_THAN_RANDOM = "no better than random"
BREAKS = "breaks the text"
NO_EFFECT = NOTHING
OVERFLOWS = "overflows"
TOO_FEW = "too few samples to say"

SMALLEST = 0.05
"""A share's difference that is smaller is no effect worth finding."""
_POWER = 0.8

Compare = Callable[[pd.DataFrame, pd.DataFrame, str, Literal["share", "mean"]], PairedDifference]
"""`paired_by_sample`, or another function of the same shape."""


def verdicts(
    frame: pd.DataFrame,
    metric: str,
    kind: Literal["share", "mean"],
    *,
    margin: float = MARGIN,
    better: Better = "higher",
    compare: Compare = paired_by_sample,
) -> pd.DataFrame:
    """One row per steered condition: what can be said about it.

    Success is on topic AND fluent (`steerlens.measures.damage.success`). Completions are paired by prompt and sample
    number with the unsteered ones, the controls beside the condition, and prompting, as far as the frame has them
    (roles "unsteered", "random", "shuffled", "negated", "prompting"; of several wordings, the most successful).
    P-values are corrected for the number of steered conditions (Holm 1979).

    Args:
        better: which way of the metric is success; for a share, "lower" counts completions without it.
        compare: how two conditions are compared; `paired_bootstrap` speaks of prompts like these, not of these alone.

    Returns:
        Columns: condition, label, layer, coeff, placement; difference (of success from unsteered) with difference_low
        and difference_high (95 %, not corrected), p (corrected); over_random, over_prompting (differences from these,
        NaN without); verdict; more (further samples per prompt after which a difference of this size would show with
        80 % power; <NA> unless there are too few samples); why (the sentence behind the verdict).

    The verdicts: "works" (more success than unsteered, and than every control that was run); "works, but less than
    prompting"; "no better than random" (nor than another vector of its length: shuffled, negated); "breaks the text"
    (on topic more often, but not in fluent text, or less than half as often fluent as unsteered); "overflows" (no
    logits, so no text: every number is NaN); "no effect found" (the interval leaves out a difference of 5 points); "too
    few samples to say".
    """
    data = frame.assign(
        _success=success(frame, metric, kind, margin=margin, better=better),
        _fluent=fluent(frame, margin=margin).astype(float),
        _lost=lost(frame),
    ).drop_duplicates(["condition", *PAIR])
    base = data[data["role"] == "unsteered"]
    way = 1 if better == "higher" else -1
    prompting = _best_words(data[data["role"] == "prompting"], way if kind == "mean" else 1)
    groups = [group for _, group in data[data["role"] == "steered"].groupby("condition", sort=False)]
    gains = [compare(group, base, "_success", kind) for group in groups]
    on_topic = [compare(group, base, metric, kind) for group in groups]
    corrected = holm([one.p_value for one in gains]), holm([one.p_value for one in on_topic])
    rows = []
    for group, gain, topic, p, topic_p in zip(groups, gains, on_topic, *corrected, strict=True):
        first = group.iloc[0]
        beside = {
            role: _compared(group, data[is_control_of(data, first, role)], kind, compare)
            for role in CONTROLS
            if role != "prompting"
        }
        seen = _Seen(
            kind=kind,
            way=way,
            gain=gain,
            p=p,
            on_topic=topic,
            on_topic_p=topic_p,
            over={role: one for role, one in beside.items() if one is not None},
            over_prompting=_compared(group, prompting, kind, compare),
            lost=float(group["_lost"].mean()),
            fluent=float(group["_fluent"].mean()),
            fluent_base=float(base["_fluent"].mean()),
        )
        verdict, why = seen.verdict()
        rows.append(
            {
                **{name: first[name] for name in ("condition", "label", "layer", "coeff", "placement")},
                "difference": gain.estimate,
                "difference_low": gain.low,
                "difference_high": gain.high,
                "p": p,
                "over_random": _estimate(beside["random"]),
                "over_prompting": _estimate(seen.over_prompting),
                "verdict": verdict,
                "more": _more_samples(group, base, kind, tried=len(groups)) if verdict == TOO_FEW else pd.NA,
                "why": why,
            }
        )
    columns = ["condition", "label", "layer", "coeff", "placement", "difference", "difference_low", "difference_high"]
    columns += ["p", "over_random", "over_prompting", "verdict", "more", "why"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "more": "Int64"})


def judged(
    frame: pd.DataFrame,
    metric: str,
    kind: Literal["share", "mean"],
    *,
    margin: float = MARGIN,
    better: Better = "higher",
) -> pd.DataFrame | None:
    """`effects` with the verdict of each steered condition ("" for others), by condition; None without surprise.

    What tables and pages show: no effect without its damage and what can be said of it.
    """
    if "surprise" not in frame:
        return None
    table = effects(frame, metric, kind, margin=margin, better=better).set_index("condition")
    said = verdicts(frame, metric, kind, margin=margin, better=better).set_index("condition")
    return table.assign(**{name: said[name].reindex(table.index).fillna("") for name in ("verdict", "why")})


@dataclass(frozen=True)
class _Seen:
    """What is known of one condition; p-values corrected, differences paired.

    `way` is −1 where a lower metric is better: then falls of a mean, and of the share on topic, are what is wanted.
    """

    kind: str
    way: int
    gain: PairedDifference
    p: float
    on_topic: PairedDifference
    on_topic_p: float
    over: Mapping[str, PairedDifference]
    over_prompting: PairedDifference | None
    lost: float
    fluent: float
    fluent_base: float

    def verdict(self) -> tuple[str, str]:
        """The verdict and the sentence behind it."""
        if self.lost == 1:
            return OVERFLOWS, "steering overflows the model: there is no text; a smaller coefficient may do"
        gain = f"{_points(self.gain, self.kind)} against unsteered"
        if self.p < LEVEL and self._good(self.gain) > 0:
            for role, control in self.over.items():
                if not (control.p_value < LEVEL and self._good(control) > 0):
                    named = f"{'the' if role == 'negated' else 'a'} {CONTROLS[role]}"
                    return NO_BETTER_THAN_RANDOM, f"{_points(control, self.kind)} against {named}"
            words = self.over_prompting
            if words is not None and words.p_value < LEVEL and self._good(words) < 0:
                return LESS_THAN_PROMPTING, f"{_points(words, self.kind)} against prompting"
            return WORKS, gain
        if self.kind == "share" and self.on_topic_p < LEVEL and self.way * self.on_topic.estimate > 0:
            more, left = _points(self.on_topic, self.kind), _points(self.gain, self.kind)
            return BREAKS, f"{more} on topic, but {left} {'on topic' if self.way > 0 else 'off topic'} and fluent"
        if self.fluent < 0.5 * self.fluent_base:
            return BREAKS, f"{self.fluent:.0%} of the completions are fluent, unsteered {self.fluent_base:.0%}"
        if self.kind == "share" and self.gain.high < SMALLEST:
            return NO_EFFECT, gain
        return TOO_FEW, f"{gain} (p = {self.p:.2g}, corrected)"

    def _good(self, difference: PairedDifference) -> float:
        """A difference, positive where it is the one that is wanted (success of a share always is)."""
        return difference.estimate if self.kind == "share" else self.way * difference.estimate


def samples_needed(first: float, second: float, *, level: float = LEVEL, power: float = _POWER) -> int:
    """Pairs after which shares `first` and `second` of independent pairs differ at `level` with this power.

    The usual two-proportion formula (Fleiss, Levin & Paik 2003, eq. 4.14, without continuity correction): an upper
    estimate for paired samples, whose agreement only helps.
    """
    distance = abs(first - second)
    if not distance:
        return 10**9
    z_level, z_power = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    pooled = (first + second) / 2
    under_null = z_level * math.sqrt(2 * pooled * (1 - pooled))
    under_other = z_power * math.sqrt(first * (1 - first) + second * (1 - second))
    return math.ceil(((under_null + under_other) / distance) ** 2)


def _more_samples(group: pd.DataFrame, base: pd.DataFrame, kind: str, *, tried: int) -> object:
    """Further samples per prompt; <NA> where the difference seen points nowhere."""
    first, second = float(group["_success"].mean()), float(base["_success"].mean())
    if kind != "share" or not first > second:
        return pd.NA
    needed = samples_needed(first, second, level=LEVEL / tried)
    prompts = group["prompt"].nunique()
    return max(math.ceil((needed - len(group)) / prompts), 1)


def _compared(
    group: pd.DataFrame, control: pd.DataFrame, kind: Literal["share", "mean"], compare: Compare
) -> PairedDifference | None:
    """The difference of success from a control; None without one, or if it has no value for any of the pairs."""
    found = compare(group, control, "_success", kind)
    return found if found.n else None


def _best_words(prompting: pd.DataFrame, way: int) -> pd.DataFrame:
    """Of several wordings, the completions of the most successful one."""
    if prompting["condition"].nunique() < 2:
        return prompting
    means = prompting.groupby("condition")["_success"].mean() * way
    return prompting[prompting["condition"] == means.idxmax()]


def _estimate(difference: PairedDifference | None) -> float:
    return math.nan if difference is None else difference.estimate


def _points(difference: PairedDifference, kind: str) -> str:
    if kind == "share":
        return f"{100 * difference.estimate:+.1f} points"
    return f"{difference.estimate:+.3g}"
