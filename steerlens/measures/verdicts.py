"""Verdicts: what a sweep's numbers say about each condition, in words, corrected for the number tried."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import pandas as pd

from steerlens.measures.damage import MARGIN, effects, fluent, success
from steerlens.measures.measuring import lost
from steerlens.measures.pairing import PAIR, holm, paired_by_sample
from steerlens.measures.statistics import PairedDifference

WORKS = "works"
LESS_THAN_PROMPTING = "works, but less than prompting"
NO_BETTER_THAN_RANDOM = "no better than random"
BREAKS = "breaks the text"
NO_EFFECT = "no effect found"
OVERFLOWS = "overflows"
TOO_FEW = "too few samples to say"

LEVEL = 0.05
"""Of the corrected p-value below which a difference is taken for real."""
SMALLEST = 0.05
"""A share's difference that is smaller is no effect worth finding."""
_POWER = 0.8


def verdicts(
    frame: pd.DataFrame, metric: str, kind: Literal["share", "mean"], *, margin: float = MARGIN
) -> pd.DataFrame:
    """One row per steered condition: what can be said about it.

    Success is on topic AND fluent (`steerlens.measures.damage.success`). Completions are paired by prompt and sample
    number with the unsteered ones, the random vector of the same layer and coefficient, and prompting, as far as the
    frame has them (roles "unsteered", "random", "prompting"). P-values are corrected for the number of steered
    conditions (Holm 1979).

    Returns:
        Columns: condition, label, layer, coeff, placement; difference (of success from unsteered) with difference_low
        and difference_high (95 %, not corrected), p (corrected); over_random (difference from the random vector, NaN
        without); verdict; more (further samples per prompt after which a difference of this size would show with 80 %
        power; <NA> unless there are too few samples); why (the sentence behind the verdict).

    The verdicts: "works" (more success than unsteered, and than random where that was run); "works, but less than
    prompting"; "no better than random"; "breaks the text" (on topic more often, but not in fluent text, or less than
    half as often fluent as unsteered); "overflows" (no logits, so no text: every number is NaN); "no effect
    found" (the interval leaves out a difference of 5 points); "too few samples to say".
    """
    data = frame.assign(
        _success=success(frame, metric, kind, margin=margin),
        _fluent=fluent(frame, margin=margin).astype(float),
        _lost=lost(frame),
    ).drop_duplicates(["condition", *PAIR])
    base, prompting = data[data["role"] == "unsteered"], data[data["role"] == "prompting"]
    random = data[data["role"] == "random"]
    groups = [group for _, group in data[data["role"] == "steered"].groupby("condition", sort=False)]
    gains = [paired_by_sample(group, base, "_success", kind) for group in groups]
    on_topic = [paired_by_sample(group, base, metric, kind) for group in groups]
    corrected = holm([one.p_value for one in gains]), holm([one.p_value for one in on_topic])
    rows = []
    for group, gain, topic, p, topic_p in zip(groups, gains, on_topic, *corrected, strict=True):
        first = group.iloc[0]
        control = random[(random["layer"] == first["layer"]) & (random["coeff"] == first["coeff"])]
        seen = _Seen(
            kind=kind,
            gain=gain,
            p=p,
            on_topic=topic,
            on_topic_p=topic_p,
            over_random=_compared(group, control, kind),
            over_prompting=_compared(group, prompting, kind),
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
                "over_random": math.nan if seen.over_random is None else seen.over_random.estimate,
                "verdict": verdict,
                "more": _more_samples(group, base, kind, tried=len(groups)) if verdict == TOO_FEW else pd.NA,
                "why": why,
            }
        )
    columns = ["condition", "label", "layer", "coeff", "placement", "difference", "difference_low", "difference_high"]
    columns += ["p", "over_random", "verdict", "more", "why"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "more": "Int64"})


def judged(
    frame: pd.DataFrame, metric: str, kind: Literal["share", "mean"], *, margin: float = MARGIN
) -> pd.DataFrame | None:
    """`effects` with the verdict of each steered condition ("" for others), by condition; None without surprise.

    What tables and pages show: no effect without its damage and what can be said of it.
    """
    if "surprise" not in frame:
        return None
    table = effects(frame, metric, kind, margin=margin).set_index("condition")
    said = verdicts(frame, metric, kind, margin=margin).set_index("condition")
    return table.assign(**{name: said[name].reindex(table.index).fillna("") for name in ("verdict", "why")})


@dataclass(frozen=True)
class _Seen:
    """What is known of one condition; p-values corrected, differences paired."""

    kind: str
    gain: PairedDifference
    p: float
    on_topic: PairedDifference
    on_topic_p: float
    over_random: PairedDifference | None
    over_prompting: PairedDifference | None
    lost: float
    fluent: float
    fluent_base: float

    def verdict(self) -> tuple[str, str]:
        """The verdict and the sentence behind it."""
        if self.lost == 1:
            return OVERFLOWS, "steering overflows the model: there is no text; a smaller coefficient may do"
        gain = f"{_points(self.gain, self.kind)} against unsteered"
        if self.p < LEVEL and self.gain.estimate > 0:
            random, prompting = self.over_random, self.over_prompting
            if random is not None and not (random.p_value < LEVEL and random.estimate > 0):
                return NO_BETTER_THAN_RANDOM, f"{_points(random, self.kind)} against a random vector of equal norm"
            if prompting is not None and prompting.p_value < LEVEL and prompting.estimate < 0:
                return LESS_THAN_PROMPTING, f"{_points(prompting, self.kind)} against prompting"
            return WORKS, gain
        if self.kind == "share" and self.on_topic_p < LEVEL and self.on_topic.estimate > 0:
            more, left = _points(self.on_topic, self.kind), _points(self.gain, self.kind)
            return BREAKS, f"{more} on topic, but {left} on topic and fluent"
        if self.fluent < 0.5 * self.fluent_base:
            return BREAKS, f"{self.fluent:.0%} of the completions are fluent, unsteered {self.fluent_base:.0%}"
        if self.kind == "share" and self.gain.high < SMALLEST:
            return NO_EFFECT, gain
        return TOO_FEW, f"{gain} (p = {self.p:.2g}, corrected)"


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


def _compared(group: pd.DataFrame, control: pd.DataFrame, kind: Literal["share", "mean"]) -> PairedDifference | None:
    """The difference of success from a control; None without one, or if it has no value for any of the pairs."""
    found = paired_by_sample(group, control, "_success", kind)
    return found if found.n else None


def _points(difference: PairedDifference, kind: str) -> str:
    if kind == "share":
        return f"{100 * difference.estimate:+.1f} points"
    return f"{difference.estimate:+.3g}"
