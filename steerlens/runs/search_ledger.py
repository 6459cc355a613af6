"""What a search has to choose from, and what it knows so far: candidates as coordinates, successes counted.

Candidates are points on a grid: a group (what kind of steering: direction, operation, placement), a layer and a level
of strength. Neighbours in layer and level do alike, and so do groups at the same layer and level, if less so. What is
known of a candidate is its own completions, and what its neighbours' completions let one expect.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

# How far neighbours tell about each other, in layers and in levels, and how much groups do.
_REACH_LAYERS, _REACH_LEVELS, _ACROSS_GROUPS = 1.5, 1.0, 0.25
# What neighbours say never counts as more than so many completions of one's own.
_MOST_FROM_NEIGHBOURS = 8.0
# What is expected of a candidate of which nothing is known, in completions: mostly failure, with little weight.
_PRIOR_HITS, _PRIOR_MISSES = 0.3, 0.7


@dataclass(frozen=True, eq=False)
class Space:
    """Candidates as coordinates.

    Attributes:
        group: number of the kind of steering.
        layer: the layer's number.
        level: place of the strength on its scale, rising.
        cheap: what looks without sampling say of it, higher is more promising; NaN where nothing is known.
    """

    group: Int[np.ndarray, " candidate"]
    layer: Int[np.ndarray, " candidate"]
    level: Int[np.ndarray, " candidate"]
    cheap: Float[np.ndarray, "candidate look"]

    def __len__(self) -> int:
        return len(self.group)

    def likeness(self) -> Float[np.ndarray, "candidate candidate"]:
        """How much each candidate tells about each other one, from 0 to 1; of itself it is 0."""
        apart = [np.subtract.outer(values, values) for values in (self.layer, self.level)]
        near = np.exp(-0.5 * ((apart[0] / _REACH_LAYERS) ** 2 + (apart[1] / _REACH_LEVELS) ** 2))
        near = np.where(np.equal.outer(self.group, self.group), near, _ACROSS_GROUPS * near)
        np.fill_diagonal(near, 0.0)
        return near


@dataclass(eq=False)
class Ledger:
    """What is known of the candidates.

    Attributes:
        rungs: completions of a candidate at each rung, added to those of the rungs before.
        hits, tries: successes and completions so far.
        rung: the next rung of each candidate; `len(rungs)` when it has had all.
        value: by candidate and rung, the share of success after that rung; NaN before it.
    """

    space: Space
    rungs: tuple[int, ...]
    hits: Float[np.ndarray, " candidate"] = field(init=False)
    tries: Float[np.ndarray, " candidate"] = field(init=False)
    rung: Int[np.ndarray, " candidate"] = field(init=False)
    value: Float[np.ndarray, "candidate rung"] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.space)
        self.hits, self.tries, self.rung = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
        self.value = np.full((n, len(self.rungs)), np.nan)
        self._near = self.space.likeness()

    def take(self, candidate: int, hits: float, tries: int) -> None:
        """Note the outcome of a candidate's next rung."""
        self.hits[candidate] += hits
        self.tries[candidate] += tries
        self.value[candidate, self.rung[candidate]] = self.hits[candidate] / max(self.tries[candidate], 1)
        self.rung[candidate] += 1

    @property
    def open(self) -> Int[np.ndarray, " some"]:
        """The candidates that have not had all rungs."""
        return np.flatnonzero(self.rung < len(self.rungs))

    def expected(self) -> tuple[Float[np.ndarray, " candidate"], Float[np.ndarray, " candidate"]]:
        """Successes and failures that each candidate counts with: its own, its neighbours' discounted, and a prior."""
        around = self._near @ self.tries
        share = np.divide(self._near @ self.hits, around, out=np.zeros(len(around)), where=around > 0)
        weight = np.minimum(around, _MOST_FROM_NEIGHBOURS)
        hits = _PRIOR_HITS + weight * share + self.hits
        return hits, _PRIOR_MISSES + weight * (1 - share) + self.tries - self.hits

    def best(self) -> int | None:
        """The candidate of which most success is expected among those sampled; None before any was.

        Its own completions count in full and its neighbours' a little, so a lucky few do not win.
        """
        seen = np.flatnonzero(self.tries > 0)
        if not len(seen):
            return None
        hits, misses = self.expected()
        return int(seen[np.argmax((hits / (hits + misses))[seen])])
