"""Steered next-token distributions beside the base's, slice by slice on the device: what shifts are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model
from steerlens.steering.conditions import Condition, Steering, as_conditions
from steerlens.steering.placement import Placement
from steerlens.steering.prompts import prompt_ids

Positions = Literal["last", "all"]

# Base distributions of one prompt that are held while its other conditions come.
_BASE_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Compared:
    """Some cells of a job: one distribution under a condition, and the base's at the same place.

    Attributes:
        where: on the CPU, for every cell its row in `Comparison.distinct`, its prompt and its position.
        logprobs, base: log-probabilities (nats), float32 or float64.
    """

    where: Int[Tensor, "3 cells"]
    logprobs: Float[Tensor, "cells d_vocab"]
    base: Float[Tensor, "cells d_vocab"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Prompts × conditions, each to be compared with the first condition.

    Attributes:
        conditions: the conditions; the first is the base.
        rows: token ids of the prompts.
        distinct: for every condition, which of the distinct ones it is (equal ones, and those without effect, are one).
    """

    model: HookedModel
    conditions: tuple[Condition, ...]
    rows: tuple[tuple[int, ...], ...]
    positions: Positions
    _job: Job
    _passages: tuple[tuple[int, int], ...]  # of each passage, its prompt and its first position

    @staticmethod
    def of(
        model: HookedModel,
        prompts: Sequence[str],
        conditions: Sequence[Condition],
        *,
        positions: Positions = "last",
    ) -> Comparison:
        """The job of comparing every condition with the first.

        Raises:
            SteerlensError: no prompts, an empty prompt, an unknown `positions`, a vector of another model.
        """
        require_model(model)
        if positions not in ("last", "all"):
            raise SteerlensError(f"positions={positions!r} is unknown; use 'last' or 'all'")
        if not prompts:
            raise SteerlensError("there are no prompts; give at least one text")
        rows = tuple(tuple(prompt_ids(model, text)) for text in prompts)
        window = max(_BASE_BYTES // (4 * int(model.cfg.d_vocab)), 1)
        passages, origin = [], []
        for number, ids in enumerate(rows):
            # A long prompt is asked for piece by piece: 128,000 tokens at 2,000 positions would be a gigabyte.
            for first in range(0 if positions == "all" else len(ids) - 1, len(ids), window):
                passages.append(Passage(ids, len(ids), first, min(first + window, len(ids))))
                origin.append((number, first))
        return Comparison(model, tuple(conditions), rows, positions, Job.of(model, passages, conditions), tuple(origin))

    @property
    def distinct(self) -> tuple[int, ...]:
        return self._job.tree.leaf_of

    @torch.no_grad()
    def cells(self, *, batch_size: int | None = None, memory_budget: int | None = None) -> Iterator[Compared]:
        """All cells, a slice at a time; the base's own cells are among them.

        Raises:
            SteerlensError: a vector that does not fit its prompt.
        """
        base_leaf = self.distinct[0]
        prompt_of = torch.tensor([prompt for prompt, _ in self._passages])
        first_of = torch.tensor([first for _, first in self._passages])
        held: dict[tuple[int, int], Tensor] = {}
        others_came = False
        for cells in self._job.cells(first=0, batch_size=batch_size, memory_budget=memory_budget):
            logits = cells.logits if cells.logits.dtype == torch.float64 else cells.logits.float()
            logprobs = logits.log_softmax(-1)
            leaf, passage, offset = cells.where
            places = list(zip(passage.tolist(), offset.tolist(), strict=True))
            is_base = (leaf == base_leaf).tolist()
            if is_base[0] and others_came:
                held, others_came = {}, False  # the next passages
            for i, place in enumerate(places):
                if is_base[i]:
                    held[place] = logprobs[i]
            base = torch.stack([held[place] for place in places])
            others_came |= not all(is_base) or len(set(self.distinct)) == 1
            yield Compared(torch.stack([leaf, prompt_of[passage], first_of[passage] + offset]), logprobs, base)


def against_unsteered(
    steering: Steering | Sequence[Steering], *, placement: Placement | None = None
) -> tuple[Condition, ...]:
    """The conditions of a job with the unsteered one in front, and no second unsteered one.

    Raises:
        SteerlensError: nothing but unsteered conditions: there is no shift to look at.
    """
    asked = as_conditions(steering, placement=placement)
    steered = [condition for condition in asked if condition.injections]
    if not steered:
        raise SteerlensError("a shift needs a steered condition; give a vector, such as 5 * actadd(model, …)")
    base = next((condition for condition in asked if not condition.injections), Condition())
    return (base, *steered)


def shared_columns(number: int, condition: Condition) -> dict[str, object]:
    """The columns by which every frame names a condition."""
    return {
        "condition": number,
        "label": condition.label,
        "layer": condition.layer,
        "coeff": condition.coeff,
        "placement": condition.placement,
    }
