"""Running a job: passages × conditions in, logits of the wanted positions out, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.engine.broken_rows import Gate
from steerlens.engine.budget import row_limit, slice_rows
from steerlens.engine.growing import (
    can_grow_by_hooks,
    can_walk_blocks,
    grow_by_hooks,
    has_live_hooks,
    padding_is_harmless,
    run_all_rows,
    walk_blocks,
)
from steerlens.engine.growths import Bank, Growth, Prompts, grown, laid_out
from steerlens.engine.jobs import Batch, Branch, Passage, Tree, batches
from steerlens.errors import SteerlensError
from steerlens.interruptions import breathe
from steerlens.models import HookedModel, final_logits, is_bridge, require_model
from steerlens.steering.conditions import Condition, gates_of
from steerlens.steering.fits import check_fits
from steerlens.steering.gates import Opened, open_gates, warn_of_closed
from steerlens.steering.tokens import pad_id

Way = Literal["walk", "hooks", "rows"]
"""How a job is run: block by block, as a batch grown by hooks, or all rows from the start (see `growing`)."""

# Logits that a reduction keeps of one condition while it compares others with it, in slices.
_KEPT_SLICES = 4


@dataclass(frozen=True, eq=False)
class Cells:
    """Next-token logits of some positions of some rows.

    Attributes:
        logits: in the model's dtype.
        where: on the CPU, for every cell its condition (index into `Job.tree.leaves`), its passage, and which of the
            passage's wanted positions it is.
        leaf, passage, offset: the same on the device of the logits.
    """

    logits: Float[Tensor, "cells d_vocab"]
    where: Int[Tensor, "3 cells"]
    leaf: Int[Tensor, " cells"]
    passage: Int[Tensor, " cells"]
    offset: Int[Tensor, " cells"]


@dataclass(frozen=True, eq=False)
class Job:
    """Passages × conditions on a model."""

    model: HookedModel
    passages: tuple[Passage, ...]
    tree: Tree
    opened: Opened

    @staticmethod
    def of(model: HookedModel, passages: Sequence[Passage], conditions: Sequence[Condition]) -> Job:
        """The job of running every passage under every condition.

        Raises:
            SteerlensError: not a TransformerLens model; a vector from another model, or that does not fit.
        """
        require_model(model)
        lengths, spans = zip(*((passage.prompt_length, passage.spans) for passage in passages), strict=True)
        check_fits(conditions, lengths, spans=spans)
        tree = Tree.of(model, conditions)
        gates, prompts = gates_of(conditions), [passage.ids[: passage.prompt_length] for passage in passages]
        job = Job(model, tuple(passages), tree, open_gates(model, gates, prompts))
        warn_of_closed(model, gates, prompts, job.opened)
        if all(passage.prompt_length == len(passage.ids) for passage in job.passages):
            _check_reached(job.tree)
        return job

    @torch.no_grad()
    def cells(
        self,
        *,
        first: int | None = None,
        batch_size: int | None = None,
        memory_budget: int | None = None,
        way: Way | None = None,
    ) -> Iterator[Cells]:
        """The logits of all wanted positions of the job, slice by slice; nothing is kept.

        Rows without a distribution (steering that overflows) are NaN throughout, and a warning names their conditions.

        Args:
            first: a condition of the job whose cells come before those of all others, passage by passage.
            batch_size: rows that run together; by default what fits the memory.
            memory_budget: bytes instead of what is free on the device.
            way: how to run it; by default the fastest that the model, and whatever hooks are on it, allow.

        Raises:
            SteerlensError: an explicit budget too small for one row; a device that runs out of memory all the same; an
                unsteered model whose logits are NaN or infinite.
        """
        hooked = has_live_hooks(self.model)
        way = way or self._way(hooked)
        # Hooks at the end of the model see every position, as they would in a plain call.
        some = is_bridge(self.model) and not hooked
        held = len(_columns(self.passages)) if some else max(len(passage.ids) for passage in self.passages)
        limit = row_limit(
            self.model,
            logits_per_row=0 if way == "walk" else held,  # a walk computes its logits in slices
            batch_size=batch_size,
            memory_budget=memory_budget,
        )
        at_once = slice_rows(self.model, memory_budget)
        order = self.tree.in_walking_order(None if first is None else self.tree.leaves[self.tree.leaf_of[first]])
        plan = batches(
            self.passages,
            order,
            limit,
            same_length=hooked or not padding_is_harmless(self.model),
            resume=way == "walk",
            # A caller that asks for one condition first keeps its logits until the others on those passages have come.
            wanted_limit=None if first is None else _KEPT_SLICES * at_once,
        )
        bank = Bank(self.tree.injections())
        place_of = {leaf: place for place, leaf in enumerate(self.tree.leaves)}
        clean: Tensor | None = None
        unsteered = self.tree.leaves.index(self.tree.root) if self.tree.root in self.tree.leaves else None
        gate = Gate(len(self.tree.leaves), unsteered=unsteered)
        for batch in plan:
            breathe()
            try:
                if way == "walk":
                    at_end, clean = self._walked(batch, bank, clean)
                else:
                    at_end = self._called(batch, bank, way, some=some, masked=hooked)
            except torch.OutOfMemoryError:
                rows = len(batch.passages) * len(batch.leaves)
                raise SteerlensError(
                    f"{self.model.cfg.device} ran out of memory with {rows} rows of {batch.width} tokens; "
                    f"{'give a smaller batch_size or memory_budget' if rows > 1 else 'shorten the text'}"
                ) from None
            leaves = [place_of[leaf] for leaf in batch.leaves]
            for cells in at_end.slices(leaves, at_once):
                yield replace(cells, logits=gate.passed(cells.logits, cells.leaf))
        gate.report(self.tree.leaf_of)

    def _way(self, hooked: bool) -> Way:
        if hooked:
            return "rows"
        if can_walk_blocks(self.model):
            return "walk"
        # Nothing to save where every row starts at the first block.
        late = any(branch.layer > 0 for leaf in self.tree.leaves for branch in leaf.path())
        return "hooks" if late and can_grow_by_hooks(self.model) else "rows"

    def _walked(self, batch: Batch, bank: Bank, clean: Tensor | None) -> tuple[_AtEnd, Tensor | None]:
        """A walk over the blocks, and the clean rows from which the next batch starts."""
        passages, tokens = self._tokens(batch)
        growths, order = self._grown(batch, bank)
        at_end = _AtEnd(self.model, batch, self.passages, order)
        wanted_from = min(passage.first for passage in passages)
        resid, clean = walk_blocks(
            self.model,
            tokens,
            growths,
            bank,
            clean=clean if batch.start > 0 else None,
            start=batch.start,
            hand_on=batch.hand_on,
            wanted_from=wanted_from,
        )
        at_end.take(resid, range(wanted_from, batch.width), are_logits=False)
        return at_end, clean

    def _called(self, batch: Batch, bank: Bank, way: Way, *, some: bool, masked: bool) -> _AtEnd:
        """The model's own forward pass."""
        passages, tokens = self._tokens(batch)
        columns = _columns(passages) if some else range(batch.width)
        options: dict[str, Any] = {}
        if len(columns) < batch.width:
            # Where a model that is spread over several devices ends is not known here: an index on the CPU is good
            # anywhere, at the price of a copy for which the host waits.
            several = getattr(self.model.cfg, "n_devices", 1) > 1
            options["logits_to_keep"] = torch.tensor(columns, device="cpu" if several else tokens.device)
        if way == "hooks":
            growths, order = self._grown(batch, bank)
            logits = grow_by_hooks(self.model, tokens, growths, bank, **options)
        else:
            order = list(batch.leaves)
            growths = laid_out(batch, self._prompts(batch), bank)
            tokens = tokens.repeat(len(order), 1)
            if masked or not is_bridge(self.model):
                options["attention_mask"] = torch.ones_like(tokens)
            logits = run_all_rows(self.model, tokens, [one.to(tokens.device) for one in growths], bank, **options)
        at_end = _AtEnd(self.model, batch, self.passages, order)
        at_end.take(logits, columns, are_logits=True)
        return at_end

    def _tokens(self, batch: Batch) -> tuple[list[Passage], Int[Tensor, "passages pos"]]:
        passages = [self.passages[i] for i in batch.passages]
        fill = pad_id(self.model)
        rows = [[*passage.ids, *[fill] * (batch.width - len(passage.ids))] for passage in passages]
        return passages, torch.tensor(rows, device=self.model.cfg.device)

    def _grown(self, batch: Batch, bank: Bank) -> tuple[list[Growth], list[Branch]]:
        """A growing batch; all its indices are moved to the device up front, so that nothing waits between blocks."""
        growths, order = grown(batch, self.tree.root, self._prompts(batch), bank, n_layers=self.model.cfg.n_layers)
        return [growth.to(self.model.cfg.device) for growth in growths], order

    def _prompts(self, batch: Batch) -> Prompts:
        here = list(batch.passages)
        opened = {gate: torch.tensor(found, dtype=torch.bool)[here] for gate, found in self.opened.items()}
        return Prompts.of(self.model, [self.passages[i] for i in here], opened)


class _AtEnd:
    """The wanted positions of a batch once its pass is over; `order` says which branches its rows belong to."""

    def __init__(self, model: HookedModel, batch: Batch, passages: Sequence[Passage], order: Sequence[Branch]) -> None:
        self._model, self._batch = model, batch
        self._passages = [passages[i] for i in batch.passages]
        places = {branch: place for place, branch in enumerate(order)}
        self._places = [places[leaf] for leaf in batch.leaves]
        self._values = torch.empty(0)
        self._are_logits = False

    def take(self, values: Float[Tensor, "rows kept width"], columns: Sequence[int], *, are_logits: bool) -> None:
        """Keep what is wanted of `values`, leaf by leaf, passage by passage; `columns` are the positions they hold."""
        held = {column: i for i, column in enumerate(columns)}
        wanted, passages = [], []
        for i, passage in enumerate(self._passages):
            for column in range(passage.first, passage.stop):
                wanted.append(held[column])
                passages.append(i)
        first_rows = torch.tensor(self._places)[:, None] * len(self._passages)
        place = torch.stack(
            [(first_rows + torch.tensor(passages)).flatten(), torch.tensor(wanted).repeat(len(self._places))]
        ).to(values.device)
        self._values, self._are_logits = values[place[0], place[1]], are_logits

    def slices(self, leaves: Sequence[int], size: int) -> Iterator[Cells]:
        """The cells, at most `size` at a time; `leaves` are the numbers of the batch's leaves."""
        numbered = zip(self._batch.passages, self._passages, strict=True)
        passages = [number for number, passage in numbered for _ in range(passage.n_wanted)]
        offsets = [offset for passage in self._passages for offset in range(passage.n_wanted)]
        where = torch.stack(
            [
                torch.tensor(leaves).repeat_interleave(len(passages)),
                torch.tensor(passages).repeat(len(leaves)),
                torch.tensor(offsets).repeat(len(leaves)),
            ]
        )
        on_device = where.to(self._values.device)
        for begin in range(0, len(self._values), size):
            here = slice(begin, begin + size)
            part = self._values[here]
            logits = part if self._are_logits else final_logits(self._model, part)
            leaf, passage, offset = on_device[:, here]
            yield Cells(logits, where[:, here], leaf, passage, offset)


def _columns(passages: Sequence[Passage]) -> list[int]:
    """All wanted positions, in order."""
    return sorted({column for passage in passages for column in range(passage.first, passage.stop)})


def _check_reached(tree: Tree) -> None:
    """Raise unless every vector has a position to go to where there are only prompts."""
    for leaf in tree.leaves:
        for branch in leaf.path():
            for injection in branch.injections:
                if injection.placement == "generated":
                    raise SteerlensError(
                        f"the vector {injection.vector.label!r} goes to generated tokens only, and a prompt has none; "
                        "use placement='from_last', or score a text that goes on from a prompt="
                    )
