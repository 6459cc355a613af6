"""Strategies of a search: which candidates get how many more samples next. They see counts, never models or texts.

`"random"` and `"tpe"` (Optuna's multivariate tree-structured Parzen estimator) draw a candidate at a time and give it
all its samples. With `"+halving"` a candidate first gets few, and the best third of each rung goes on to the next as
soon as it is known (asynchronous successive halving, Li et al., arXiv 1810.05934). `"ordered+halving"` draws new
candidates by what looks without sampling say of them, by turns with random ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from steerlens.extras import needs
from steerlens.runs.search_ledger import Ledger

StrategyName = Literal["ordered+halving", "random+halving", "tpe+halving", "random", "tpe"]
STRATEGIES = ("ordered+halving", "random+halving", "tpe+halving", "random", "tpe")

# Of the candidates of a rung, one in so many goes on.
_KEEP = 3
# Optuna proposes points that are known or do not exist; after so many a random one is taken.
_PATIENCE = 25


class Strategy(Protocol):
    """Decides what is sampled next."""

    def ask(self, ledger: Ledger, room: Sequence[int]) -> tuple[int, list[int]]:
        """A rung, and the candidates that are to have it now; none if there is nothing left to do.

        Args:
            room: how many candidates may be sampled together, by rung; 0 where the budget has none left.
        """
        ...


def strategy_of(name: str, *, seed: int) -> Strategy:
    """The strategy of this name.

    Raises:
        SteerlensError: it needs Optuna, which is not installed.
    """
    drawing = name.removesuffix("+halving")
    source: Any = {"random": RandomOrder, "tpe": Tpe, "ordered": CheapOrder}[drawing](seed)
    return Halving(source) if name.endswith("+halving") else Plain(source)


def rungs_of(name: str, samples: int) -> tuple[int, ...]:
    """How many samples a prompt gets at each rung, `samples` in all."""
    if not name.endswith("+halving") or samples < 4:
        return (samples,)
    first = max(samples // 8, 1)
    second = max(3 * samples // 8, first + 1)
    return (first, second - first, samples - second)


class Source(Protocol):
    """Gives new candidates one at a time."""

    def draw(self, ledger: Ledger, fresh: np.ndarray) -> int:
        """One of the candidates of which nothing is known yet."""
        ...

    def tell(self, ledger: Ledger) -> None:
        """Look at what has become known."""
        ...


class RandomOrder:
    """Candidates in random order."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed % 2**64)

    def draw(self, ledger: Ledger, fresh: np.ndarray) -> int:
        return int(self._random.choice(fresh))

    def tell(self, ledger: Ledger) -> None:
        pass


class CheapOrder(RandomOrder):
    """By turns the most promising candidate by each cheap look, and a random one: looks tell little, and differ."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._drawn = 0

    def draw(self, ledger: Ledger, fresh: np.ndarray) -> int:
        looks = ledger.space.cheap.shape[1]
        look = self._drawn % (looks + 1)
        self._drawn += 1
        if look == looks:
            return super().draw(ledger, fresh)
        promising = np.nan_to_num(ledger.space.cheap[fresh, look], nan=-np.inf)
        if not np.isfinite(promising).any():
            return super().draw(ledger, fresh)
        return int(fresh[np.argmax(promising)])


class Tpe(RandomOrder):
    """Candidates as Optuna's TPE proposes them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        (self._optuna,) = needs("optuna", extra="search")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that multivariate sampling is experimental
            sampler = self._optuna.samplers.TPESampler(
                seed=seed % 2**32, multivariate=True, constant_liar=True, n_startup_trials=10
            )
        self._study = self._optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: dict[int, Any] = {}
        self._told: dict[int, int] = {}

    def draw(self, ledger: Ledger, fresh: np.ndarray) -> int:
        space = ledger.space
        at = {key: int(c) for c, key in enumerate(zip(space.group, space.layer, space.level, strict=True))}
        new = set(fresh.tolist())
        trial = None
        for _ in range(_PATIENCE):
            trial = self._study.ask(self._distributions(ledger))
            found = at.get((trial.params["group"], trial.params["layer"], trial.params["level"]))
            if found is not None and found in new:
                self._asked[found] = trial
                return found
            # (a point that does not exist, or that is known: what it was worth is known too)
            worth = 0.0 if found is None or not ledger.tries[found] else ledger.hits[found] / ledger.tries[found]
            self._study.tell(trial, worth)
        return super().draw(ledger, fresh)

    def tell(self, ledger: Ledger) -> None:
        for candidate in np.flatnonzero(ledger.rung > 0).tolist():
            rung = int(ledger.rung[candidate])
            if self._told.get(candidate) == rung:
                continue
            self._told[candidate] = rung
            value = float(ledger.value[candidate, rung - 1])
            trial = self._asked.pop(candidate, None)
            if trial is not None:
                self._study.tell(trial, value)
                continue
            space = ledger.space
            names = {"group": space.group, "layer": space.layer, "level": space.level}
            params = {name: int(values[candidate]) for name, values in names.items()}
            self._study.add_trial(
                self._optuna.trial.create_trial(params=params, distributions=self._distributions(ledger), value=value)
            )

    def _distributions(self, ledger: Ledger) -> dict[str, Any]:
        space, kinds = ledger.space, self._optuna.distributions
        whole = kinds.IntDistribution
        return {
            "group": kinds.CategoricalDistribution(sorted(set(space.group.tolist()))),
            "layer": whole(int(space.layer.min()), int(space.layer.max())),
            "level": whole(int(space.level.min()), int(space.level.max())),
        }


class Plain:
    """New candidates, one after the other."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def ask(self, ledger: Ledger, room: Sequence[int]) -> tuple[int, list[int]]:
        return 0, self._new(ledger, room[0])

    def _new(self, ledger: Ledger, count: int) -> list[int]:
        self._source.tell(ledger)
        drawn: list[int] = []
        fresh = np.flatnonzero(ledger.rung == 0)
        while len(drawn) < count and len(fresh):
            drawn.append(self._source.draw(ledger, fresh))
            fresh = fresh[fresh != drawn[-1]]
        return drawn


class Halving(Plain):
    """New candidates at the first rung; the best third of each rung goes on to the next, the highest rung first."""

    def ask(self, ledger: Ledger, room: Sequence[int]) -> tuple[int, list[int]]:
        for rung in reversed(range(1, len(ledger.rungs))):
            known = np.flatnonzero(ledger.rung >= rung)
            values = ledger.value[known, rung - 1]
            order = known[np.argsort(-values, kind="stable")]
            keep = len(order) // _KEEP if (ledger.rung == 0).any() else len(order)
            waiting = [int(one) for one in order[:keep] if ledger.rung[one] == rung and ledger.hits[one] > 0]
            if waiting and room[rung]:
                return rung, waiting[: room[rung]]
        return 0, self._new(ledger, room[0])
