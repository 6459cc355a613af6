"""What is learned by descent: to make texts likely, or to prefer one text to another, by something at one layer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import listed, shown
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.chats import template_of
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.biased_runs import BiasedRuns, first_steered, target_rows
from steerlens.steering.extraction.token_choice import TokenRow, contrast_rows
from steerlens.steering.prompts import is_one_prompt, plain_prompt

Item = tuple[TokenRow, ...]
"""One row of a text, or two of a pair: preferred and rejected."""


@dataclass
class Objective:
    """A loss of what is learned: by default a bias; see `BiasedRuns.edit` for other meanings of its numbers.

    Attributes:
        beta: of preferences.
        opposite: the numbers of what acts the other way.
    """

    runs: BiasedRuns
    beta: float
    seed: int
    opposite: Callable[[Tensor], Tensor] = torch.neg
    known: dict[int, Tensor] = field(default_factory=dict)
    name = ""

    def loss(self, items: Sequence[Item], bias: Float[Tensor, "*two n"], step: int) -> Tensor:
        """The loss of a batch: a scalar, or one for each of two biases."""
        raise NotImplementedError

    def check(self, items: Sequence[Item], bias: Float[Tensor, " n"], *, size: int) -> float:
        """The loss by which vectors are chosen, in batches of `size`, weighted by what each averages over."""
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        weights = [sum(one[0].end - one[0].begin for one in part) if len(part[0]) == 1 else len(part) for part in parts]
        with torch.no_grad():
            found = [float(self.loss(part, bias, 0)) * weight for part, weight in zip(parts, weights, strict=True)]
        return sum(found) / sum(weights)

    def log_probs(self, items: Sequence[Item], bias: Float[Tensor, "*two n"]) -> Float[Tensor, "*two rows"]:
        """The rows of all items, one after the other; under each bias, if there are two."""
        rows = rows_of(items)
        if bias.ndim == 1:
            return self.runs.log_probs(rows, bias)
        return self.runs.log_probs([*rows, *rows], bias.repeat_interleave(len(rows), 0)).view(2, -1)


class Likelihood(Objective):
    """The mean log-probability of texts, per token."""

    name = "log-probability"

    def loss(self, items: Sequence[Item], bias: Float[Tensor, "*two n"], step: int) -> Tensor:
        """Its negative, in nats."""
        return -self.log_probs(items, bias).sum(-1) / sum(row.end - row.begin for (row,) in items)


class Preference(Objective):
    """Bi-directional preference optimisation (Cao et al., arXiv 2406.00045)."""

    name = "preference"

    def loss(self, items: Sequence[Item], bias: Float[Tensor, "*two n"], step: int) -> Tensor:
        """−log σ(dβ · margin) with the sign d of the step; at step 0, which checks, d = 1."""
        sign = 1.0 if step == 0 else random.Random(f"{self.seed} {step}").choice((-1.0, 1.0))
        gained = self.log_probs(items, bias if sign > 0 else self.opposite(bias)) - self._before(items)
        margin = gained[..., 0::2] - gained[..., 1::2]
        return -torch.nn.functional.logsigmoid(sign * self.beta * margin).mean(-1)

    def _before(self, items: Sequence[Item]) -> Float[Tensor, " rows"]:
        """Without the bias; each row is run only once for this."""
        new = [item for item in items if id(item) not in self.known]  # the lists of items outlive the objective
        if new:
            with torch.no_grad():
                values = self.runs.log_probs(rows_of(new), None)
            self.known.update({id(item): pair for item, pair in zip(new, values.view(-1, 2), strict=True)})
        return torch.cat([self.known[id(item)] for item in items])


def rows_of(items: Sequence[Item]) -> list[TokenRow]:
    """The rows of all items, one after the other."""
    return [row for item in items for row in item]


def items_of(model: HookedModel, targets: Sequence[str] | ContrastSet, prompts: Any) -> list[Item]:
    """What is learned from, as token rows.

    Raises:
        SteerlensError: no targets, a contrast set without pairs, prompts that do not go with the targets, a text with
            no token that steering reaches.
    """
    if isinstance(targets, ContrastSet):
        if prompts is not None:
            raise SteerlensError("a ContrastSet brings its own contexts; leave out prompts=")
        if not targets.paired:
            raise SteerlensError("preferences need pairs, and the texts of this contrast set are not in pairs")
        pairs: list[Item] = list(zip(*contrast_rows(model, targets, "completion"), strict=True))
        if any(row.begin <= first_steered(model) for row in pairs[0]):
            raise SteerlensError(
                "the texts of pair 0 differ in their first token, which steering cannot reach; give them a context"
            )
        return pairs
    if isinstance(targets, str) or not isinstance(targets, Sequence) or not len(targets):
        raise SteerlensError(f"targets must be a list of at least one text, or a ContrastSet, got {shown(targets)}")
    if prompts is not None:
        prompts = [prompts] * len(targets) if is_one_prompt(prompts) else listed("prompts", prompts, of="prompts")
        if len(prompts) != len(targets):
            raise SteerlensError(f"{len(prompts)} prompts for {len(targets)} targets; give one, or one for each")
    return [(row,) for row in target_rows(model, targets, prompts)]


def recorded(model: HookedModel, targets: Sequence[str] | ContrastSet, prompts: Any) -> dict[str, Any]:
    """What it was learned from, as plain data."""
    if isinstance(targets, ContrastSet):
        return {"contrast": targets.record(), **template_of(model, targets.texts)}
    return {"targets": list(targets), "prompts": prompts if prompts is None else _plain(prompts)}


def _plain(prompts: Any) -> Any:
    return plain_prompt(prompts) if is_one_prompt(prompts) else [plain_prompt(prompt) for prompt in prompts]


def name_of(targets: Sequence[str] | ContrastSet) -> str:
    """What it was learned from, in words."""
    if isinstance(targets, ContrastSet):
        return f"preference, {targets.name}"
    return repr(targets[0]) if len(targets) == 1 else f"{len(targets)} texts"
