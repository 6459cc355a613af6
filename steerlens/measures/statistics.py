"""Intervals and paired comparisons, on numpy alone; every random draw takes its seed as an argument."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerlens.errors import SteerlensError

Floats = NDArray[np.float64]
Statistic = Callable[..., Any]

# Above this many degrees of freedom the expansion of A&S 26.7.5 is exact to 1e-10 and much cheaper than the series.
_SERIES_LIMIT = 1000
# Bootstrap draws are made in blocks of about this many numbers, so that memory does not grow with resamples x n.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits: floats, or arrays of one shape. NaN where there is none."""

    estimate: Any
    low: Any
    high: Any
    n: Any
    level: float

    @property
    def mean(self) -> Any:
        """The estimate under the name that summary frames use: a share is a mean of zeros and ones."""
        return self.estimate


@dataclass(frozen=True)
class PairedDifference:
    """Mean of `after - before` over pairs, its confidence limits and a two-sided p-value."""

    estimate: float
    low: float
    high: float
    p_value: float
    n: int
    level: float
    method: str


def wilson_interval(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> Interval:
    """Share `successes / n` with its Wilson score interval, element by element.

    Scalars in, floats out; arrays broadcast. n = 0 gives NaN for the share and both limits: nothing was seen. Raises
    ValueError for negative counts, NaN, or more successes than trials. Source: Wilson 1927; Brown, Cai & DasGupta
    2001, eq. 4.
    """
    z = _normal_quantile(level)
    hits, trials = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if not (np.isfinite(hits).all() and np.isfinite(trials).all()):
        raise SteerlensError("successes or n holds NaN or infinity; count only completions whose metric is defined")
    if (hits < 0).any() or (hits > trials).any():
        wrong = int(np.argmax(((hits < 0) | (hits > trials)).ravel()))
        raise SteerlensError(
            f"{hits.ravel()[wrong]:g} successes of n = {trials.ravel()[wrong]:g}; successes must lie between 0 and n"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hits / trials
        spread = 1 + z**2 / trials
        centre = (share + z**2 / (2 * trials)) / spread
        half = z / spread * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At 0 and n successes the limits are 0 and 1 exactly; rounding would leave 1e-17 and, on a log axis, a long tail.
    low = np.where(hits == 0, np.where(trials == 0, np.nan, 0.0), centre - half)
    high = np.where(hits == trials, np.where(trials == 0, np.nan, 1.0), centre + half)
    return Interval(_plain(share), _plain(low), _plain(high), _plain(trials.astype(np.int64)), level)


def mean_interval(values: ArrayLike, level: float = 0.95, *, nan: Literal["raise", "omit"] = "raise") -> Interval:
    """Mean over the last axis with its Student-t interval.

    `values` [... n]. With n = 1 the mean is given and both limits are NaN: one observation says nothing about spread.
    With n = 0 all three are NaN. NaN among the values raises ValueError unless `nan="omit"`, which drops them and
    lowers n; infinities always raise.
    """
    data = _finite(values, nan)
    known = ~np.isnan(data)
    n = known.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, data, 0.0).sum(axis=-1) / n
        squares = np.where(known, (data - mean[..., None]) ** 2, 0.0).sum(axis=-1)
        error = np.sqrt(squares / (n - 1) / n)
    mean = np.where(n > 0, mean, np.nan)
    sizes, where = np.unique(n, return_inverse=True)
    quantiles = np.array([t_quantile(0.5 + level / 2, int(size) - 1) if size > 1 else np.nan for size in sizes])
    half = np.where(n > 1, error, np.nan) * quantiles[where].reshape(np.shape(n))
    return Interval(_plain(mean), _plain(mean - half), _plain(mean + half), _plain(n), level)


def metric_interval(values: ArrayLike, kind: str, level: float = 0.95) -> Interval:
    """Summary of one metric over completions: Wilson for kind "share", Student-t for kind "mean".

    NaN values (completions for which the metric is not defined) are left out and lower n. Shares must be 0 or 1.
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    data = data[~np.isnan(data)]
    if kind == "mean":
        return mean_interval(data, level)
    if kind != "share":
        raise SteerlensError(f'metric kind {kind!r} is unknown; use "share" or "mean"')
    if not np.isin(data, (0.0, 1.0)).all():
        wrong = data[~np.isin(data, (0.0, 1.0))][0]
        raise SteerlensError(f'a share counts zeros and ones but the values hold {wrong:g}; use kind="mean"')
    return wilson_interval(float(data.sum()), data.size, level)


def bootstrap_interval(
    values: ArrayLike, statistic: Statistic = np.mean, *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Interval:
    """`statistic(values)` with its percentile-bootstrap interval.

    `values` [n] or [n k]: rows are resampled with replacement. `statistic` takes `(array, axis=)` and reduces that
    axis, as np.mean, np.median and np.std do. The same seed gives the same interval and no global random state is
    touched. n = 0 gives NaN; n = 1 gives NaN limits. NaN or infinity raises ValueError. Source: Efron 1979, percentile
    method.
    """
    _normal_quantile(level)
    data = _finite(values, "raise")
    if resamples < 1:
        raise SteerlensError(f"resamples = {resamples}; at least 1 is needed")
    if data.ndim == 0:
        raise SteerlensError("a single number was given; pass a sequence of observations")
    n = data.shape[0]
    if n == 0:
        empty = np.full(data.shape[1:], np.nan)
        return Interval(_plain(empty), _plain(empty), _plain(empty), 0, level)
    estimate = np.asarray(statistic(data, axis=0), dtype=np.float64)
    if n == 1:
        unknown = np.full_like(estimate, np.nan)
        return Interval(_plain(estimate), _plain(unknown), _plain(unknown), 1, level)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(1, data.size))
    draws = []
    for start in range(0, resamples, block):
        rows = generator.integers(0, n, size=(n, min(block, resamples - start)))
        draws.append(np.asarray(statistic(data[rows], axis=0), dtype=np.float64))
    low, high = np.quantile(np.concatenate(draws), [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return Interval(_plain(estimate), _plain(low), _plain(high), n, level)


def paired_difference(
    after: ArrayLike,
    before: ArrayLike,
    *,
    kind: Literal["mean", "share"] = "mean",
    method: Literal["analytic", "bootstrap"] = "analytic",
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedDifference:
    """Mean of `after - before` over pairs (same prompt, same sample number), with limits and a two-sided p-value.

    `after`, `before` [n], row i of both from the same seed. What `method` gives:
    - "analytic", kind "mean": paired Student-t interval and test;
    - "analytic", kind "share": Bonett & Price 2012 interval and the exact McNemar test on discordant pairs;
    - "bootstrap", either kind: percentile interval over pairs, and a sign-flip randomisation test, both from `seed`.
    Equal data give estimate 0 and p = 1. With n = 1 a mean has NaN limits and NaN p; n = 0, NaN, unequal lengths,
    and shares that are not 0 or 1 raise ValueError.
    """
    z = _normal_quantile(level)
    a, b = _finite(after, "raise"), _finite(before, "raise")
    if a.ndim != 1 or a.shape != b.shape:
        raise SteerlensError(f"after has shape {a.shape} and before {b.shape}; pairs need two sequences of one length")
    n = a.size
    if n == 0:
        raise SteerlensError("no pairs were given; a difference needs at least one")
    if kind == "share" and not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        raise SteerlensError('a share counts zeros and ones but the values hold others; use kind="mean"')
    difference = a - b
    estimate = float(difference.mean())
    if method == "bootstrap":
        limits = bootstrap_interval(difference, level=level, resamples=resamples, seed=seed)
        p_value = _sign_flip(difference, resamples=resamples, seed=seed + 1)
        return PairedDifference(estimate, limits.low, limits.high, p_value, n, level, "bootstrap, sign-flip test")
    if method != "analytic":
        raise SteerlensError(f'method {method!r} is unknown; use "analytic" or "bootstrap"')
    if kind == "share":
        gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
        up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
        half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
        low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
        return PairedDifference(estimate, low, high, mcnemar(gained, lost), n, level, "Bonett-Price, exact McNemar")
    if kind != "mean":
        raise SteerlensError(f'kind {kind!r} is unknown; use "mean" or "share"')
    limits = mean_interval(difference, level)
    if n == 1:
        p_value = math.nan
    else:
        error = float(difference.std(ddof=1)) / math.sqrt(n)
        p_value = 1.0 - _t_within(abs(estimate) / error, n - 1) if error > 0 else float(estimate == 0)
    return PairedDifference(estimate, limits.low, limits.high, p_value, n, level, "paired t")


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of the exact McNemar test: `gained` pairs went 0 to 1, `lost` pairs 1 to 0; 1 if neither.

    Source: McNemar 1947 with the binomial tail in place of chi-squared, right for few discordant pairs as well.
    """
    if gained < 0 or lost < 0:
        raise SteerlensError(f"gained = {gained}, lost = {lost}; counts of pairs cannot be negative")
    total, fewer = gained + lost, min(gained, lost)
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2.0 * math.fsum(math.exp(value) for value in logs))


def pareto_front(effect: ArrayLike, damage: ArrayLike) -> NDArray[np.bool_]:
    """True for each point that no other beats: none has as much effect and as little damage, and better in one.

    `effect`, `damage` [n]. Equal points are on the front together. A point with NaN is never on it.
    """
    gain, cost = np.asarray(effect, dtype=np.float64), np.asarray(damage, dtype=np.float64)
    if gain.ndim != 1 or gain.shape != cost.shape:
        raise SteerlensError(f"effect has shape {gain.shape} and damage {cost.shape}; give two sequences of one length")
    front = np.zeros(gain.size, dtype=bool)
    known = np.flatnonzero(~(np.isnan(gain) | np.isnan(cost)))
    best, reached = -math.inf, math.nan
    for index in known[np.lexsort((-gain[known], cost[known]))]:
        if gain[index] > best:
            best, reached = gain[index], cost[index]
            front[index] = True
        else:
            front[index] = gain[index] == best and cost[index] == reached
    return front


def t_quantile(probability: float, degrees: int) -> float:
    """The Student-t value below which `probability` of the mass lies, for whole `degrees` of freedom, to 1e-9."""
    if not 0.0 < probability < 1.0:
        raise SteerlensError(f"probability = {probability}; it must lie strictly between 0 and 1")
    if degrees < 1:
        raise SteerlensError(f"degrees = {degrees}; at least 1 is needed")
    if probability < 0.5:
        return -t_quantile(1.0 - probability, degrees)
    return _upper_t_quantile(float(probability), int(degrees))


@lru_cache(maxsize=4096)
def _upper_t_quantile(probability: float, degrees: int) -> float:
    z = NormalDist().inv_cdf(probability)
    if degrees > _SERIES_LIMIT:  # Abramowitz & Stegun 26.7.5
        return (
            z
            + (z**3 + z) / (4 * degrees)
            + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
        )
    wanted = 2.0 * probability - 1.0
    low, high = 0.0, math.pi / 2  # bisect the angle atan(t / sqrt(degrees)): bounded even where t is huge
    for _ in range(80):
        middle = (low + high) / 2
        if _t_within(math.tan(middle) * math.sqrt(degrees), degrees) < wanted:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def _t_within(t: float, degrees: int) -> float:
    """P(|T| <= t) for T of Student's t with whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    if degrees > _SERIES_LIMIT:  # 26.7.8: the normal that matches to O(1 / degrees^2)
        x = t * (1 - 1 / (4 * degrees)) / math.sqrt(1 + t**2 / (2 * degrees))
        return math.erf(x / math.sqrt(2))
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if degrees == 1:
        total = 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _sign_flip(difference: Floats, *, resamples: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    observed = abs(difference.sum())
    block = max(1, _BLOCK // difference.size)
    extreme = 0
    for start in range(0, resamples, block):
        signs = generator.choice((-1.0, 1.0), size=(min(block, resamples - start), difference.size))
        # The slack lets ties of floating point sums count as ties: without it equal data would depend on rounding.
        extreme += int((np.abs(signs @ difference) >= observed * (1 - 1e-12)).sum())
    return (extreme + 1) / (resamples + 1)


def _normal_quantile(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise SteerlensError(f"level = {level}; it must lie strictly between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf(0.5 + level / 2)


def _finite(values: ArrayLike, nan: str) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if nan not in ("raise", "omit"):
        raise SteerlensError(f'nan = {nan!r} is unknown; use "raise" or "omit"')
    if np.isinf(data).any():
        raise SteerlensError(f"{int(np.isinf(data).sum())} of {data.size} values are infinite; remove them first")
    if nan == "raise" and np.isnan(data).any():
        raise SteerlensError(f"{int(np.isnan(data).sum())} of {data.size} values are NaN; remove them first")
    return data


def _plain(array: Any) -> Any:
    """Zero-dimensional arrays as plain numbers, so that scalars in give scalars out."""
    return array.item() if np.ndim(array) == 0 else array
