"""Bracketing: the coefficient at which a measure first reaches a target, found from few values at a time.

In log space: the first grid stands around the coefficient at which the vector is as long as the stream, the later ones
close in on the first crossing of the target by interpolation of the logarithms (KL grows with the square of a small
coefficient, so that is nearly a line). Numbers only; who measures is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

TOLERANCE = 0.05
"""How far from its target, in proportion, a strength may end up and still count as reached."""
# Rounds end early when every vector is this near; KL is smooth enough for it, and a round more costs little.
_NEAR = 0.02
# Lengths in proportion to the stream at which the first round looks, and where it looks, once, if all those are too
# little (or, as parts, too much). Beyond a thousand times the stream there is nothing but the vector.
FIRST = np.geomspace(0.01, 10, 10)
FIRST_OF_SURPRISE = np.geomspace(0.1, 3, 6)
_STRETCH = np.array([3.0, 10.0, 100.0])
# A strength that saturates is given at the first coefficient with so much of the most that was seen.
_SATURATED = 0.95
# Around the predicted place, in parts of the bracket's logarithm.
_AROUND = np.array([-0.12, 0.0, 0.12])
ZERO = "the vector is zero"


@dataclass(frozen=True)
class Solved:
    """A vector's coefficient for a strength; `why` says why it was not found, "" if it was."""

    coeff: float
    reached: float
    evaluations: int
    why: str = ""

    @property
    def found(self) -> bool:
        return not self.why


@dataclass
class Bracketing:
    """What is known of one vector: the coefficients tried and the values there (infinite: overflows), rising."""

    target: float
    scale: float
    tried: dict[float, float] = field(default_factory=dict)
    evaluations: int = 0

    def take(self, coeffs: Sequence[float], values: Sequence[float]) -> None:
        self.tried = dict(sorted((self.tried | dict(zip(coeffs, values, strict=True))).items()))
        self.evaluations += 1

    @property
    def best(self) -> tuple[float, float]:
        """The coefficient whose value is nearest the target, in proportion, and its value."""

        def distance(item: tuple[float, float]) -> float:
            value = item[1]
            return abs(math.log(value / self.target)) if 0 < value < math.inf else math.inf

        return min(self.tried.items(), key=distance)

    def done(self) -> bool:
        """Whether the target is reached, or it is known that nothing reaches it."""
        if not self.tried:
            return self.scale == 0
        below, above = self._bracket()
        return abs(self.best[1] / self.target - 1) <= _NEAR or (self.evaluations > 1 and None in (below, above))

    def next(self, first: Float[np.ndarray, " tried"]) -> list[float]:
        """The coefficients to try next."""
        if not self.tried:
            return list(first / self.scale)
        below, above = self._bracket()
        if above is None:
            return list(_STRETCH * max(self.tried))
        if below is None:
            return list(min(self.tried) / _STRETCH)
        low, high = math.log(below), math.log(above)
        ends = self.tried[below], self.tried[above]
        if math.isfinite(ends[1]) and ends[0] > 0:
            place = math.log(self.target / ends[0]) / math.log(ends[1] / ends[0])
        else:
            place = 0.5
        spread = _AROUND if math.isfinite(ends[1]) else 2 * _AROUND
        places = np.unique(np.clip(place + spread, 0.02, 0.98))
        return [math.exp(low + one * (high - low)) for one in places]

    def _bracket(self) -> tuple[float | None, float | None]:
        """The coefficients next to the first crossing of the target from below; what overflows is beyond it."""
        below = None
        for coeff, value in self.tried.items():
            if value >= self.target:
                return below, coeff
            below = coeff
        return below, None

    def answer(self, unit: str) -> Solved:
        if self.scale == 0:
            return Solved(0.0, 0.0, 0, ZERO)
        coeff, reached = self.best
        if abs(reached / self.target - 1) <= TOLERANCE:
            return Solved(coeff, reached, self.evaluations)
        below, above = self._bracket()
        if below is None:
            least = min(self.tried)
            coeff, reached = least, self.tried[least]
            why = f"no less than {reached:.3g} {unit}, even at coefficient {least:.3g}"
        elif above is None:
            most = max(self.tried.values())
            coeff, reached = next(item for item in self.tried.items() if item[1] >= _SATURATED * most)
            why = f"saturates: no more than {most:.3g} {unit} up to coefficient {max(self.tried):.3g}"
        elif math.isinf(self.tried[above]):
            why = f"overflows above coefficient {below:.3g}, where it has {self.tried[below]:.3g} {unit}"
        else:
            why = f"not to ±{TOLERANCE:.0%} in {self.evaluations} evaluations"
        return Solved(coeff, reached, self.evaluations, why)
