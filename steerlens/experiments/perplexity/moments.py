"""`Moments`: count, mean and spread of many series, taken in parts and merged, in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from steerlens.measures.statistics import Interval, t_quantile


@dataclass(frozen=True, eq=False)
class Moments:
    """What is kept of the documents of a bin, per series.

    Attributes:
        n: documents that have a value.
        mean: of their values.
        m2: sum of squared deviations from the mean.
        total, weight: sums over tokens, for means that weigh documents by length.
    """

    n: Float[np.ndarray, "*series"]
    mean: Float[np.ndarray, "*series"]
    m2: Float[np.ndarray, "*series"]
    total: Float[np.ndarray, "*series"]
    weight: Float[np.ndarray, "*series"]

    @staticmethod
    def of(total: Float[np.ndarray, "*series document"], weight: Float[np.ndarray, "*series document"]) -> Moments:
        """The moments of `total / weight` over documents; documents of weight 0 have no value."""
        known = weight > 0
        value = np.where(known, total / np.where(known, weight, 1.0), 0.0)
        n = known.sum(-1).astype(np.float64)
        mean = value.sum(-1) / np.maximum(n, 1)
        m2 = np.where(known, (value - mean[..., None]) ** 2, 0.0).sum(-1)
        return Moments(n, mean, m2, np.where(known, total, 0.0).sum(-1), weight.sum(-1))

    def __add__(self, other: Moments) -> Moments:
        """Of both parts together (Chan, Golub and LeVeque 1983)."""
        n = self.n + other.n
        apart = other.mean - self.mean
        share = other.n / np.maximum(n, 1)
        return Moments(
            n,
            self.mean + apart * share,
            self.m2 + other.m2 + apart**2 * self.n * share,
            self.total + other.total,
            self.weight + other.weight,
        )

    def interval(self, at: tuple[int, ...], level: float = 0.95) -> Interval:
        """The mean of one series with its Student-t interval over documents; NaN where too few have a value."""
        n, mean, m2 = int(self.n[at]), float(self.mean[at]), float(self.m2[at])
        if n < 2:
            return Interval(mean if n else math.nan, math.nan, math.nan, n, level)
        half = t_quantile(0.5 + level / 2, n - 1) * math.sqrt(m2 / (n - 1) / n)
        return Interval(mean, mean - half, mean + half, n, level)

    def plain(self) -> list[Any]:
        """As plain data, for a ledger."""
        return [part.tolist() for part in (self.n, self.mean, self.m2, self.total, self.weight)]

    @staticmethod
    def from_plain(parts: list[Any]) -> Moments:
        return Moments(*(np.array(part, dtype=np.float64) for part in parts))
