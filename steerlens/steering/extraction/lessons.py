"""Lessons: an objective, learned batch by batch on some texts and checked on others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import finite_number, flag, seed_number, whole_number
from steerlens.errors import SteerlensError
from steerlens.steering.extraction.biased_runs import frozen
from steerlens.steering.extraction.descent import Descent, Gradient, descend
from steerlens.steering.extraction.objectives import Item, Objective


class NothingLearned(SteerlensError):
    """No step made the texts that training is checked on more likely."""


@dataclass(frozen=True)
class Lessons:
    """How an objective is learned, as the caller gave it; `trained` says what each means."""

    steps: int
    lr: float
    batch_size: int
    held_out: float
    patience: int
    check_every: int
    seed: int
    progress: bool | None

    def __post_init__(self) -> None:
        for name, value in (
            ("steps", whole_number("steps", self.steps, least=1)),
            ("lr", finite_number("lr", self.lr, above=0)),
            ("seed", seed_number(self.seed)),
            ("batch_size", whole_number("batch_size", self.batch_size, least=1)),
            ("patience", whole_number("patience", self.patience, least=1)),
            ("check_every", whole_number("check_every", self.check_every, least=1)),
            ("progress", None if self.progress is None else flag("progress", self.progress)),
        ):
            object.__setattr__(self, name, value)

    def split(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """The items to learn from and those to check on.

        Raises:
            SteerlensError: no share, or one item, which cannot be split.
        """
        held_out = self.held_out
        if isinstance(held_out, bool) or not isinstance(held_out, int | float) or not 0 <= held_out < 1:
            raise SteerlensError(f"held_out must be a share from 0 to below 1, got {held_out!r}")
        if held_out == 0:
            return items, items
        if len(items) < 2:
            raise SteerlensError("one text cannot be trained and checked on; give more, or held_out=0")
        order = list(items)
        random.Random(self.seed).shuffle(order)
        n = min(max(1, round(held_out * len(items))), len(items) - 1)
        return order[n:], order[:n]

    def batch(self, items: Sequence[Item], step: int) -> list[Item]:
        """The batch of a step (counted from 1): every text once, then all again in a new order."""
        size = min(self.batch_size, len(items))
        number, place = divmod(step - 1, len(items) // size)
        order = random.Random(f"{self.seed} {number}").sample(range(len(items)), len(items))
        return [items[i] for i in order[place * size : (place + 1) * size]]

    def learned(
        self,
        objective: Objective,
        train: Sequence[Item],
        test: Sequence[Item],
        start: Float[Tensor, " n"],
        *,
        unit: float,
        gradient: Gradient = "exact",
    ) -> Descent:
        """What a descent from `start` finds.

        Raises:
            SteerlensError: no step improved on the start.
        """
        with frozen(objective.runs.model):
            found = descend(
                lambda bias, step: objective.loss(self.batch(train, step), bias, step),
                lambda bias: objective.check(test, bias, size=self.batch_size),
                start,
                unit=unit,
                steps=self.steps,
                lr=self.lr,
                gradient=gradient,
                patience=self.patience,
                check_every=self.check_every,
                seed=self.seed,
                progress=self.progress,
            )
        if found.best_step == 0:
            raise NothingLearned(
                f"none of {found.losses[-1][0]} steps improved on no vector (loss {found.losses[0][1]:.4g} on the "
                "texts it is checked on); give a smaller lr=, more texts, or another layer"
            )
        return found


def course_of(found: Descent, objective: Objective) -> dict[str, Any]:
    """What a descent did, as plain data for a vector's source."""
    return {
        "steps": found.best_step,
        "losses": [[step, round(value, 6)] for step, value in found.losses],
        "interrupted": found.interrupted,
        "cost": {"forward": objective.runs.forward, "backward": objective.runs.backward},
    }
