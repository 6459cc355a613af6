"""Forward passes over a job: the growing batch of a HookedTransformer, one row-grouped pass for everything else.

Growing batch: the blocks are walked once. Clean rows are carried once for all conditions; at the input of layer l the
rows of the conditions that begin there are appended (clean + injection), so a condition costs only the blocks behind
its injection. All layers × c coefficients take about half the block-rows of a plain batch, and a fraction of its calls.

It calls the blocks itself. Whoever has hooks on the model expects the model's own calls, with rows that keep their
place: then, and on a bridge (which owns its loop over the blocks), all rows run from the first block to the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.engine.budget import row_limit, slice_rows
from steerlens.engine.jobs import Bank, Batch, Branch, Growth, Passage, Tree, batches, grown, laid_out
from steerlens.models import HookedModel, final_logits, is_bridge, require_model, resid_pre_hook
from steerlens.steering.conditions import Condition
from steerlens.steering.prompts import pad_id

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

    @staticmethod
    def of(model: HookedModel, passages: Sequence[Passage], conditions: Sequence[Condition]) -> Job:
        """The job of running every passage under every condition.

        Raises:
            SteerlensError: no model of TransformerLens; a vector of another model.
        """
        require_model(model)
        return Job(model, tuple(passages), Tree.of(model, conditions))

    @torch.no_grad()
    def cells(
        self,
        *,
        first: int | None = None,
        batch_size: int | None = None,
        memory_budget: int | None = None,
        growing: bool | None = None,
    ) -> Iterator[Cells]:
        """The logits of all wanted positions of the job, slice by slice; nothing is kept.

        Args:
            first: a condition of the job whose cells come before those of all others, passage by passage.
            batch_size: rows that run together; by default what fits the memory.
            memory_budget: bytes instead of what is free on the device.
            growing: False takes the row-grouped pass where the growing batch would do.

        Raises:
            SteerlensError: a vector that does not fit its prompt; a budget too small for one row.
        """
        hooked = has_live_hooks(self.model)
        walk = can_walk(self.model) and not hooked and growing is not False
        keep = not hooked  # hooks at the end of the model see every position, as they would in a plain call
        order = self.tree.in_walking_order(None if first is None else self.tree.leaves[self.tree.leaf_of[first]])
        # Where logits come out of the model's own pass, they are held for the columns that any row wants.
        some = keep and is_bridge(self.model)
        held = len(self._columns()) if some else max(len(passage.ids) for passage in self.passages)
        limit = row_limit(
            self.model, logits_per_row=0 if walk else held, batch_size=batch_size, memory_budget=memory_budget
        )
        bank = Bank(self.tree.leaves)
        place_of = {leaf: place for place, leaf in enumerate(self.tree.leaves)}
        clean: Tensor | None = None
        plan = batches(
            self.passages,
            order,
            limit,
            same_length=hooked or not _padding_is_harmless(self.model),
            resume=walk,
            # Whoever asks for one condition first keeps its logits for as long as the others of the same passages come.
            wanted_limit=None if first is None else _KEPT_SLICES * slice_rows(self.model),
        )
        for batch in plan:
            if walk:
                at_end, clean = self._walked(batch, bank, clean)
            else:
                at_end = self._row_grouped(batch, bank, some=some, masked=hooked)
            leaves = [place_of[leaf] for leaf in batch.leaves]
            yield from at_end.slices(leaves, slice_rows(self.model))

    def _columns(self) -> set[int]:
        return {column for passage in self.passages for column in range(passage.first, passage.stop)}

    def _walked(self, batch: Batch, bank: Bank, clean: Tensor | None) -> tuple[_AtEnd, Tensor | None]:
        """The residual stream behind the last block, and the clean rows that the next batch sets in with."""
        model: Any = self.model
        passages = [self.passages[i] for i in batch.passages]
        growths, order = grown(
            batch,
            self.tree.root,
            torch.tensor([passage.prompt_length for passage in passages]),
            bank,
            n_layers=model.cfg.n_layers,
            first_position=_first_position(model),
        )
        device = torch.device(model.cfg.device)
        # All indices go to the device before the first block, so that nothing in the walk waits.
        at_layer = {growth.layer: growth.to(device) for growth in growths}
        at_end = _AtEnd(model, batch, self.passages, {branch: i for i, branch in enumerate(order)})
        if batch.start == 0 or clean is None:
            tokens = _padded(passages, batch.width, pad_id(model)).to(device)
            # The mask says that all positions count; without one, a left-padding tokenizer would have it guessed.
            resid = model.input_to_embed(tokens, attention_mask=torch.ones_like(tokens))[0]
        else:
            resid = clean
        handed_on = None
        for layer in range(batch.start, model.cfg.n_layers):
            if layer == batch.hand_on:
                handed_on = resid[: len(passages)].clone()  # the root is the first branch for as long as it is there
            if layer in at_layer:
                resid = at_layer[layer].of(resid, bank)
            at_last = layer == model.cfg.n_layers - 1
            if at_last and all(p.n_wanted == 1 and p.stop == batch.width for p in passages) and _can_end_early(model):
                resid = _last_position(model.blocks[layer], resid)
                at_end.kept = [batch.width - 1]
            else:
                resid = model.blocks[layer](resid)
        at_end.resid = at_end.wanted(resid)
        return at_end, handed_on

    def _row_grouped(self, batch: Batch, bank: Bank, *, some: bool, masked: bool) -> _AtEnd:
        """The logits of every row, made by the model's own forward pass."""
        model: Any = self.model
        passages = [self.passages[i] for i in batch.passages]
        lengths = torch.tensor([passage.prompt_length for passage in passages])
        device = torch.device(model.cfg.device)
        growths = [g.to(device) for g in laid_out(batch, lengths, bank, first_position=_first_position(model))]
        at_end = _AtEnd(model, batch, self.passages, {leaf: i for i, leaf in enumerate(batch.leaves)})
        tokens = _padded(passages, batch.width, pad_id(model)).repeat(len(batch.leaves), 1).to(device)
        options: dict[str, Any] = {}
        if some:
            columns = sorted({column for passage in passages for column in range(passage.first, passage.stop)})
            if len(columns) < batch.width:
                options["logits_to_keep"] = torch.tensor(columns, device=device)
                at_end.kept = columns
        if masked or not is_bridge(model):
            options["attention_mask"] = torch.ones_like(tokens)
        points = model.hook_dict
        with ExitStack() as stack:
            for growth in growths:

                def hook(module: Any, args: Any, resid: Tensor, growth: Growth = growth) -> Tensor:
                    return growth.of(resid, bank)

                # PyTorch's own hook on the hook point: behind the user's, and in nobody's books.
                point = points[resid_pre_hook(growth.layer)]
                stack.callback(point.register_forward_hook(hook).remove)
            logits = model(tokens, **options)
        at_end.logits = at_end.wanted(logits)
        return at_end


class _AtEnd:
    """The wanted positions of a batch when its pass is over.

    Attributes:
        kept: the columns that the pass has kept, where not all.
    """

    def __init__(
        self, model: HookedModel, batch: Batch, passages: Sequence[Passage], place_of: dict[Branch, int]
    ) -> None:
        self._model, self._batch = model, batch
        self._passages = [passages[i] for i in batch.passages]
        self._places = [place_of[leaf] for leaf in batch.leaves]
        self.kept: list[int] | None = None
        self.resid: Tensor | None = None
        self.logits: Tensor | None = None

    def wanted(self, values: Float[Tensor, "rows pos width"]) -> Float[Tensor, "cells width"]:
        """The wanted positions, leaf by leaf, passage by passage."""
        n = len(self._passages)
        column_of = {column: i for i, column in enumerate(self.kept)} if self.kept is not None else None
        columns, passages = [], []
        for i, passage in enumerate(self._passages):
            for column in range(passage.first, passage.stop):
                columns.append(column if column_of is None else column_of[column])
                passages.append(i)
        first_rows = torch.tensor(self._places)[:, None] * n
        rows = (first_rows + torch.tensor(passages)).flatten().to(values.device)
        column = torch.tensor(columns).repeat(len(self._places)).to(values.device)
        return values[rows, column]

    def slices(self, leaves: Sequence[int], size: int) -> Iterator[Cells]:
        """The cells, at most `size` at a time; `leaves` are the numbers of the batch's leaves."""
        values = self.resid if self.resid is not None else self.logits
        assert values is not None
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
        index = where.to(values.device)
        for begin in range(0, len(values), size):
            here = slice(begin, begin + size)
            part = values[here]
            logits = final_logits(self._model, part) if self.resid is not None else part
            yield Cells(logits, where[:, here], *index[:, here].unbind())


def can_walk(model: HookedModel) -> bool:
    """Whether the blocks of `model` may be called one by one with rows of our own."""
    if is_bridge(model):
        return False
    cfg = model.cfg
    return (
        cfg.attention_dir == "causal"
        and cfg.positional_embedding_type in ("standard", "rotary", "alibi")
        and not cfg.use_hook_tokens
        and "forward" not in vars(model)
    )


def _can_end_early(model: HookedModel) -> bool:
    """Whether keys and values of a block may be computed apart from the rest of it."""
    cfg = model.cfg
    return not (
        cfg.use_attn_in
        or cfg.use_split_qkv_input
        or cfg.clip_qkv is not None
        or str(cfg.original_architecture).lower().startswith("olmo")  # normalise keys elsewhere
        or cfg.load_in_4bit
        or cfg.positional_embedding_type == "alibi"
    )


def _last_position(block: Any, resid: Float[Tensor, "rows pos d_model"]) -> Float[Tensor, "rows 1 d_model"]:
    """What a block puts out at the last position: the positions before it serve as keys and values only."""
    from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry

    if resid.shape[1] == 1:
        return block(resid)
    before = block.ln1(resid[:, :-1])
    _, keys, values = block.attn.calculate_qkv_matrices(before[:, :0], before, before)
    entry = TransformerLensKeyValueCacheEntry(keys, values, frozen=True)
    return block(resid[:, -1:], past_kv_cache_entry=entry)


def has_live_hooks(model: HookedModel) -> bool:
    """Whether anything would notice, or change, a forward pass: hooks of TransformerLens or PyTorch on any module."""
    modules: Any = model
    return any(
        not _is_of_the_bridge(function)
        for module in modules.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for function in hooks.values()
    )


def _padding_is_harmless(model: HookedModel) -> bool:
    """Whether a row's numbers are its own in a wider batch; where rotary frequencies follow the width they are not."""
    if getattr(model.cfg, "use_dynamic_ntk_rope", False):
        return False
    config = getattr(getattr(model, "original_model", None), "config", None)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return not {"dynamic", "longrope"} & set(map(str, _leaves(rope)))


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    else:
        yield tree


def _is_of_the_bridge(function: Any) -> bool:
    """Whether a bridge itself has put the hook there, to feed hook points that the wrapped model does not have."""
    return str(getattr(function, "__module__", "")).startswith("transformer_lens.model_bridge")


def _padded(passages: Sequence[Passage], width: int, pad: int) -> Int[Tensor, "passages pos"]:
    return torch.tensor([[*passage.ids, *[pad] * (width - len(passage.ids))] for passage in passages])


def _first_position(model: HookedModel) -> int:
    """Where placement `"all"` begins: behind BOS."""
    return 1 if model.cfg.default_prepend_bos else 0
