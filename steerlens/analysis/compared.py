"""Steered next-token distributions beside the base's, slice by slice on the device: what shifts are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import choice
from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model
from steerlens.steering.chats import Span
from steerlens.steering.conditions import Condition, Steering, as_conditions
from steerlens.steering.placement import Placement
from steerlens.steering.prompts import PromptLike, read_prompt

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

    def of(self, distinct: Collection[int]) -> Compared | None:
        """The cells of some of the distinct conditions; None if there are none."""
        mine = torch.tensor([leaf in distinct for leaf in self.where[0].tolist()])
        if mine.all():
            return self
        if not mine.any():
            return None
        here = mine.to(self.logprobs.device)
        return Compared(self.where[:, mine], self.logprobs[here], self.base[here])


@dataclass(frozen=True, eq=False)
class Comparison:
    """Prompts × conditions, each to be compared with the first condition.

    Attributes:
        conditions: the conditions; the first is the base.
        rows: token ids of the prompts.
        spans: where the messages of those that are chats stand.
        positions: behind the last token of each prompt, or behind every token.
    """

    conditions: tuple[Condition, ...]
    rows: tuple[tuple[int, ...], ...]
    spans: tuple[tuple[Span, ...], ...]
    positions: Positions
    _windows: tuple[_Window, ...]

    @staticmethod
    def of(
        model: HookedModel,
        prompts: Sequence[PromptLike],
        conditions: Sequence[Condition],
        *,
        positions: Positions = "last",
    ) -> Comparison:
        """The job of comparing every condition with the first.

        Raises:
            SteerlensError: no prompts, an empty prompt, an unknown `positions`, a vector of another model.
        """
        require_model(model)
        choice("positions", positions, ("last", "all"))
        if not prompts:
            raise SteerlensError("there are no prompts; give at least one text")
        read = [read_prompt(model, prompt) for prompt in prompts]
        rows, spans = tuple(one.ids for one in read), tuple(one.spans for one in read)
        # A long prompt is asked for window by window: 128,000 tokens at 2,000 positions would be a gigabyte.
        width = max(_BASE_BYTES // (4 * int(model.cfg.d_vocab)), 1)
        asked: dict[int, list[tuple[int, Passage]]] = {}
        for number, ids in enumerate(rows):
            for first in range(0 if positions == "all" else len(ids) - 1, len(ids), width):
                passage = Passage(ids, len(ids), first, min(first + width, len(ids)), spans[number])
                asked.setdefault(first if positions == "all" else 0, []).append((number, passage))
        windows = []
        for some in asked.values():
            numbers, passages = zip(*some, strict=True)
            windows.append(_Window(Job.of(model, passages, conditions), numbers))
        return Comparison(tuple(conditions), rows, spans, positions, tuple(windows))

    @property
    def distinct(self) -> tuple[int, ...]:
        """For every condition, which of the distinct ones it is: equal ones, and those without effect, are one."""
        return self._windows[0].job.tree.leaf_of

    def cells(self, *, batch_size: int | None = None, memory_budget: int | None = None) -> Iterator[Compared]:
        """All cells, a slice at a time; the base's own cells are among them.

        Raises:
            SteerlensError: a vector that does not fit its prompt.
        """
        for window in self._windows:
            yield from window.cells(batch_size=batch_size, memory_budget=memory_budget)


@dataclass(frozen=True, eq=False)
class _Window:
    """Some positions of some prompts under all conditions; `prompts` are the numbers of the job's passages."""

    job: Job
    prompts: tuple[int, ...]

    def cells(self, *, batch_size: int | None, memory_budget: int | None) -> Iterator[Compared]:
        base_leaf = self.job.tree.leaf_of[0]
        alone = len(self.job.tree.leaves) == 1
        prompt_of = torch.tensor(self.prompts)
        first_of = torch.tensor([passage.first for passage in self.job.passages])
        held = _Rows(max(passage.n_wanted for passage in self.job.passages))
        others_came = False
        for cells in self.job.cells(first=0, batch_size=batch_size, memory_budget=memory_budget):
            logits = cells.logits if cells.logits.dtype == torch.float64 else cells.logits.float()
            logprobs = logits.log_softmax(-1)
            leaf, passage, offset = cells.where
            places = list(zip(passage.tolist(), offset.tolist(), strict=True))
            mine = int((leaf == base_leaf).sum())  # the base's cells come before those of all others
            if mine and others_came:
                held.clear()  # these are the next passages
                others_came = False
            if mine:
                held.put(places[:mine], logprobs[:mine])
            others_came |= mine < len(places) or alone
            where = torch.stack([leaf, prompt_of[passage], first_of[passage] + offset])
            yield Compared(where, logprobs, logprobs if mine == len(places) else held.get(places))


class _Rows:
    """Distributions by place, copied into one tensor: kept slices would hold the memory around them, too."""

    def __init__(self, expected: int) -> None:
        self._capacity, self._table = expected, torch.empty(0)
        self._row_of: dict[tuple[int, int], int] = {}

    def clear(self) -> None:
        self._row_of = {}

    def put(self, places: Sequence[tuple[int, int]], values: Float[Tensor, "cells d_vocab"]) -> None:
        first = len(self._row_of)
        if first + len(places) > len(self._table):
            self._capacity = max(self._capacity, first + len(places)) if first == 0 else 2 * (first + len(places))
            grown = values.new_empty(self._capacity, values.shape[1])
            if first:
                grown[:first] = self._table[:first]
            self._table = grown
        self._table[first : first + len(places)] = values
        self._row_of.update({place: first + i for i, place in enumerate(places)})

    def get(self, places: Sequence[tuple[int, int]]) -> Float[Tensor, "cells d_vocab"]:
        rows = torch.tensor([self._row_of[place] for place in places], device=self._table.device)
        if len(self._row_of) == 1:
            return self._table[:1].expand(len(places), -1)
        return self._table[rows]


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
