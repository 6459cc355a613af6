"""Next-token distributions of a grid, reduced on the device: no more than a slice of the logits exists at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import whole_number
from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Cells, Job
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.steering.conditions import Condition, Steering, as_conditions
from steerlens.steering.placement import Placement
from steerlens.steering.prompts import PromptLike, read_prompts


@dataclass(frozen=True, eq=False)
class TopTokens:
    """Some tokens of each distribution, in order.

    Attributes:
        ids: token ids.
        logprobs: their log-probabilities (nats) under the condition.
        base_logprobs: … under the base condition; None if none was named.
    """

    ids: Int[Tensor, "*cell k"]
    logprobs: Float[Tensor, "*cell k"]
    base_logprobs: Float[Tensor, "*cell k"] | None = None


@dataclass(frozen=True, eq=False)
class NextTokens:
    """What was asked about the next-token distributions of a job, on the model's device, in nats.

    A *cell* is `condition prompt`, with positions="all" `condition prompt pos`; positions behind the end of a shorter
    prompt hold NaN (ids: −1). What was not asked for is None.

    Attributes:
        conditions: the conditions of the job.
        prompts: token ids of the prompts, BOS included.
        logprobs: log-probability of each target.
        ranks: how many tokens are more likely than the target (0: it is the most likely; −1: no distribution).
        set_logprobs: log-probability that the next token is one of the set.
        entropy: of the distribution.
        kl: KL(condition ‖ base).
        likely: the most likely tokens.
        rises, falls: the tokens whose log-probability rose or fell most against the base.
    """

    conditions: tuple[Condition, ...]
    prompts: tuple[tuple[int, ...], ...]
    logprobs: Float[Tensor, "*cell target"] | None = None
    ranks: Int[Tensor, "*cell target"] | None = None
    set_logprobs: Float[Tensor, "*cell set"] | None = None
    entropy: Float[Tensor, "*cell"] | None = None
    kl: Float[Tensor, "*cell"] | None = None
    likely: TopTokens | None = None
    rises: TopTokens | None = None
    falls: TopTokens | None = None


@for_one_thread
@torch.no_grad()
def reduce_next_tokens(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    steering: Steering | Sequence[Steering] = None,
    *,
    placement: Placement | None = None,
    targets: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None,
    ranks: bool = False,
    sets: Sequence[Sequence[int]] | None = None,
    entropy: bool = False,
    base: int | None = None,
    top_k: int | None = None,
    likely: int | None = None,
    positions: Literal["last", "all"] = "last",
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> NextTokens:
    """Numbers about the next-token distributions of prompts × conditions, without holding the logits of the grid.

    Args:
        prompts: one prompt or several, of any lengths: texts, chats, token ids.
        steering: a vector, a tuple of vectors that act together, a Condition, None, or a list of those. Duplicates and
            conditions without effect cost nothing.
        targets: token ids whose log-probabilities are wanted: the same for all prompts, or one row per prompt.
        ranks: the ranks of the targets too.
        sets: sets of token ids; the log-probability of each set as a whole (a set counts each of its ids once).
        entropy: the entropies.
        base: index of the condition that others are compared with; gives `kl`, and what `top_k` needs.
        top_k: how many rises and falls of log-probability against the base.
        likely: how many of the most likely tokens.
        positions: distributions after the last token of each prompt, or after every token.
        batch_size, memory_budget: rows that run together; bytes for them. By default whatever fits the device.

    Returns:
        float32 tensors (float64 for a float64 model), in the order of the job.

    Raises:
        SteerlensError: a token id or base index out of range, `top_k` without `base`, `ranks` without `targets`,
            an empty set, an empty prompt, a vector that does not fit.
    """
    require_model(model)
    conditions = as_conditions(steering, placement=placement)
    rows = read_prompts(model, prompts)
    if positions not in ("last", "all"):
        raise SteerlensError(f"positions must be 'last' or 'all', got {positions!r}")
    whole = positions == "all"
    passages = [Passage(one.ids, len(one), 0 if whole else len(one) - 1, len(one), one.spans) for one in rows]
    vocab = int(model.cfg.d_vocab)
    if base is not None and not -len(conditions) <= base < len(conditions):
        raise SteerlensError(
            f"base={base} is no index into {len(conditions)} conditions; use 0 to {len(conditions) - 1}"
        )
    if top_k is not None and base is None:
        raise SteerlensError("top_k compares with a base condition; give base= as an index into the conditions")
    if ranks and targets is None:
        raise SteerlensError("ranks are those of targets; give targets= as token ids")
    for name, count in (("top_k", top_k), ("likely", likely)):
        if count is not None:
            whole_number(name, count, least=1, most=vocab)
    job = Job.of(model, passages, conditions)
    reduction = _Reduction(
        job,
        targets=_target_table(targets, len(rows), vocab),
        ranks=ranks,
        sets=_set_ids(sets, vocab),
        entropy=entropy,
        base=None if base is None else job.tree.leaf_of[base],
        top_k=top_k,
        likely=likely,
    )
    for cells in job.cells(first=base, batch_size=batch_size, memory_budget=memory_budget):
        reduction.take(cells)
    return reduction.result(conditions, tuple(one.ids for one in rows), drop_pos=not whole)


class BaseLogprobs:
    """The log-probabilities of one condition, kept while those of the others on the same passages arrive.

    For jobs whose cells come in the order of `job.cells(first=…)`, with the base as the first.
    """

    def __init__(self, job: Job, leaf: int) -> None:
        most = max(passage.n_wanted for passage in job.passages)
        self._leaf, self._alone = leaf, len(job.tree.leaves) == 1
        self._rows: Tensor | None = None
        self._place = torch.zeros(len(job.passages), most, dtype=torch.long)  # its row, per passage and position
        self._complete = True

    def of(self, cells: Cells, logprobs: Float[Tensor, "cells d_vocab"]) -> Float[Tensor, "some d_vocab"]:
        """The base's log-probabilities for `cells`: a row for each, or one for all of them."""
        leaf, passage, offset = cells.where
        mine = int((leaf == self._leaf).sum())  # the first so many
        if mine:
            kept = [] if self._complete or self._rows is None else [self._rows]
            first = sum(map(len, kept))
            self._rows = torch.cat([*kept, logprobs[:mine]])
            self._place[passage[:mine], offset[:mine]] = torch.arange(first, first + mine)
        # Once other conditions follow, the next base cells belong to other passages.
        self._complete = mine < len(leaf) or self._alone
        assert self._rows is not None
        if len(self._rows) == 1:
            return self._rows
        return self._rows[self._place[passage, offset].to(logprobs.device)]


class _Reduction:
    """Collects answers, one row per distinct condition, and spreads them over the conditions of the job at the end."""

    def __init__(
        self,
        job: Job,
        *,
        targets: Int[Tensor, "prompt target"] | None,
        ranks: bool,
        sets: list[Tensor] | None,
        entropy: bool,
        base: int | None,
        top_k: int | None,
        likely: int | None,
    ) -> None:
        self._leaf_of = job.tree.leaf_of
        self._shape = (len(job.tree.leaves), len(job.passages), max(p.n_wanted for p in job.passages))
        self._targets, self._ranks, self._sets, self._entropy = targets, ranks, sets, entropy
        self._top_k, self._likely = top_k, likely
        self._beside = None if base is None else BaseLogprobs(job, base)
        self._found: dict[str, Tensor] = {}

    def take(self, cells: Cells) -> None:
        logits = cells.logits if cells.logits.dtype == torch.float64 else cells.logits.float()
        logprobs = logits.log_softmax(-1)
        if self._targets is not None:
            self._targets = self._targets.to(logits.device)
            ids = self._targets[cells.passage]
            mine = logprobs.gather(1, ids)
            self._put("logprobs", cells, mine)
            if self._ranks:
                above = torch.stack([(logprobs > mine[:, i : i + 1]).sum(1) for i in range(ids.shape[1])], 1)
                self._put("ranks", cells, above.masked_fill(mine.isnan(), -1))
        if self._sets is not None:
            self._sets = [ids.to(logits.device) for ids in self._sets]
            self._put("set_logprobs", cells, torch.stack([logprobs[:, ids].logsumexp(1) for ids in self._sets], 1))
        if self._entropy:
            self._put("entropy", cells, -_expectation(logprobs, logprobs))
        base = None
        if self._beside is not None:
            base = self._beside.of(cells, logprobs)
            change = logprobs - base
            # Never below 0 but for rounding.
            self._put("kl", cells, _expectation(logprobs, change).clamp_min(0.0))
            if self._top_k is not None:
                for name, sign in (("rises", 1), ("falls", -1)):
                    self._put_top(name, cells, (sign * change).topk(self._top_k, dim=1).indices, logprobs, base)
        if self._likely is not None:
            self._put_top("likely", cells, logprobs.topk(self._likely, dim=1).indices, logprobs, base)

    def result(
        self, conditions: tuple[Condition, ...], prompts: tuple[tuple[int, ...], ...], *, drop_pos: bool
    ) -> NextTokens:
        spread: dict[str, Tensor] = {}
        for name, found in self._found.items():
            values = found[torch.tensor(self._leaf_of, device=found.device)]
            spread[name] = values.squeeze(2) if drop_pos else values

        def top(name: str) -> TopTokens | None:
            if f"{name}.ids" not in spread:
                return None
            return TopTokens(spread[f"{name}.ids"], spread[f"{name}.logprobs"], spread.get(f"{name}.base_logprobs"))

        tensors = {name: value for name, value in spread.items() if "." not in name}
        return NextTokens(conditions, prompts, **tensors, likely=top("likely"), rises=top("rises"), falls=top("falls"))

    def _put_top(
        self, name: str, cells: Cells, ids: Int[Tensor, "cells k"], logprobs: Tensor, base: Tensor | None
    ) -> None:
        self._put(f"{name}.ids", cells, ids)
        self._put(f"{name}.logprobs", cells, logprobs.gather(1, ids))
        if base is not None:
            self._put(f"{name}.base_logprobs", cells, base.expand_as(logprobs).gather(1, ids))

    def _put(self, name: str, cells: Cells, values: Tensor) -> None:
        if name not in self._found:
            blank = float("nan") if values.is_floating_point() else -1
            self._found[name] = values.new_full((*self._shape, *values.shape[1:]), blank)
        self._found[name][cells.leaf, cells.passage, cells.offset] = values


def _expectation(
    logprobs: Float[Tensor, "cells d_vocab"], values: Float[Tensor, "cells d_vocab"]
) -> Float[Tensor, " cells"]:
    """The mean of `values` over each distribution; values of probability 0 do not count, even infinite ones."""
    p = logprobs.exp()
    return torch.where(p == 0, 0.0, p * values).sum(1)


def _target_table(targets: object, n_prompts: int, vocab: int) -> Int[Tensor, "prompt target"] | None:
    if targets is None:
        return None
    table = torch.as_tensor(targets)
    if table.ndim not in (1, 2) or table.numel() == 0 or table.is_floating_point():
        raise SteerlensError(f"targets must be token ids, [target] or [prompt target], got shape {list(table.shape)}")
    if table.ndim == 2 and len(table) != n_prompts:
        raise SteerlensError(f"targets has {len(table)} rows for {n_prompts} prompts; give one row per prompt")
    _check_ids(table, "targets", vocab)
    return table.long() if table.ndim == 2 else table.long().expand(n_prompts, -1)


def _set_ids(sets: Sequence[Sequence[int]] | None, vocab: int) -> list[Tensor] | None:
    if sets is None:
        return None
    tables = []
    for one in sets:
        ids = torch.as_tensor(one)
        if ids.numel() == 0:
            raise SteerlensError("a set of tokens is empty; give at least one token id")
        _check_ids(ids, "sets", vocab)
        tables.append(ids.long().unique())
    if not tables:
        raise SteerlensError("sets is empty; give at least one set of token ids, or None")
    return tables


def _check_ids(ids: Tensor, name: str, vocab: int) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab:
        wrong = low if low < 0 else high
        raise SteerlensError(f"{name} names token {wrong}, but this model's tokens are 0 to {vocab - 1}")
