"""Trained vectors: a bias at one layer by descent, towards texts or towards the preferred one of two."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import choice, finite_number, flag, listed, seed_number, shown, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, require_model, require_site, site_width
from steerlens.steering.chats import template_of
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.activations import which_layers
from steerlens.steering.extraction.biased_runs import BiasedRuns, first_steered, frozen, target_rows
from steerlens.steering.extraction.class_directions import as_vectors
from steerlens.steering.extraction.descent import Descent, Gradient, descend
from steerlens.steering.extraction.token_choice import TokenRow, contrast_rows
from steerlens.steering.prompts import PromptLike, is_one_prompt, plain_prompt
from steerlens.steering.vectors import SteeringVector

_STEPS = {"exact": 100, "none": 1000}
_RATES = {"exact": 0.02, "none": 0.01}


class NothingLearned(SteerlensError):
    """No step made the texts that training is checked on more likely."""


def trained(
    model: HookedModel,
    targets: Sequence[str] | ContrastSet,
    *,
    layer: int,
    site: Site = "resid_pre",
    prompts: PromptLike | Sequence[PromptLike] | None = None,
    gradient: Gradient = "exact",
    beta: float = 0.1,
    steps: int | None = None,
    lr: float | None = None,
    batch_size: int = 8,
    held_out: float = 0.25,
    patience: int = 5,
    check_every: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> SteeringVector:
    """The one-position vector that, added at every position after BOS, makes the targets as likely as possible.

    For texts: it maximises their mean log-probability per token, each after its prompt. The model's weights are frozen;
    only one bias at one layer is trained (the smallest form of BitFit, Ben Zaken et al., arXiv 2106.10199). For a
    contrast set: bi-directional preference optimisation (BiPO, Cao et al., arXiv 2406.00045, its loss): with a random
    sign d = ±1 at every step it minimises −log σ(dβ [log π(y₊|x, dv)/π(y₊|x) − log π(y₋|x, dv)/π(y₋|x)]), where x is
    the context of a pair, or the common prefix of its texts.

    Adam, from zero; a step is `lr` times the size of an entry of the activations there. Every `check_every` steps
    the loss on held-out texts is computed; the vector with the smallest is returned, and training stops after
    `patience` checks without improvement. Ctrl-C stops it, and the best so far is returned with a warning.

    `vector.source` records the cost (`"cost"`: rows through the model, forward and backward) and the held-out losses
    (`"losses"`, nats per token, or BiPO's loss with d = 1).

    Args:
        targets: texts, or a paired ContrastSet (positive: preferred).
        layer: where the vector is added.
        site: at which place of the layer; see `Site`.
        prompts: what comes before the texts and is not trained on: one for all, or one for each.
        gradient: `"exact"`: by backpropagation; `"none"`: estimated from two forward passes (MeZO, arXiv 2305.17333),
            for models whose backward pass does not fit in memory; it needs many times as many passes (see `"cost"`).
        beta: BiPO's β.
        steps: 100, or 1000 without a gradient.
        lr: 0.02, or 0.01 without a gradient.
        batch_size: texts (or pairs) per step.
        held_out: the share of texts to validate on; 0 to validate on the training texts themselves.
        seed: of the split, the batches, the signs and the estimate.

    Raises:
        SteerlensError: nothing to train on, layer out of range, or no step that made the held-out texts more likely.
    """
    require_model(model)
    (chosen,) = which_layers(model, layer, None)
    check_site(site)
    require_site(model, site)
    choice("gradient", gradient, tuple(_STEPS))
    steps = whole_number("steps", _STEPS[gradient] if steps is None else steps, least=1)
    lr = finite_number("lr", _RATES[gradient] if lr is None else lr, above=0)
    beta, seed = finite_number("beta", beta), seed_number(seed)
    batch_size, patience = whole_number("batch_size", batch_size, least=1), whole_number("patience", patience, least=1)
    check_every = whole_number("check_every", check_every, least=1)
    progress = None if progress is None else flag("progress", progress)
    items = _items(model, targets, prompts)
    train, test = _split(items, held_out, seed)
    runs = BiasedRuns(model, chosen, site)
    start = torch.zeros(site_width(model, site), device=model.cfg.device)
    unit = runs.unit([row for item in train[:batch_size] for row in item])
    task: _Task = (_Preference if isinstance(targets, ContrastSet) else _Likelihood)(runs, beta, seed)
    with frozen(model):
        found = descend(
            lambda bias, step: task.loss(_batch(train, step, batch_size, seed), bias, step),
            lambda bias: _over(test, batch_size, lambda part: task.check(part, bias)),
            start,
            unit=unit,
            steps=steps,
            lr=lr,
            gradient=gradient,
            patience=patience,
            check_every=check_every,
            seed=seed,
            progress=progress,
        )
    if found.best_step == 0:
        raise NothingLearned(
            f"none of {found.losses[-1][0]} steps improved on no vector (loss {found.losses[0][1]:.4g} on the texts it "
            "is checked on); give a smaller lr=, more texts, or another layer"
        )
    source = {
        "method": "trained",
        "objective": task.name,
        "gradient": gradient,
        "seed": seed,
        **_texts(model, targets, prompts),
    }
    return _vector(model, chosen, found, runs, label=f"trained ({_name(targets)})", source=source)


Item = tuple[TokenRow, ...]
"""One row of a text, or two of a pair: preferred and rejected."""


@dataclass
class _Task:
    runs: BiasedRuns
    beta: float
    seed: int
    known: dict[int, Tensor] = field(default_factory=dict)
    name = ""

    def loss(self, items: Sequence[Item], bias: Float[Tensor, "*two n"], step: int) -> Tensor:
        """The loss of a batch: a scalar, or one for each of two biases."""
        raise NotImplementedError

    def check(self, items: Sequence[Item], bias: Float[Tensor, " n"]) -> float:
        """The loss by which vectors are chosen."""
        with torch.no_grad():
            return float(self.loss(items, bias, 0))

    def log_probs(self, items: Sequence[Item], bias: Float[Tensor, "*two n"]) -> Float[Tensor, "*two rows"]:
        """The rows of all items, one after the other; under each bias, if there are two."""
        rows = [row for item in items for row in item]
        if bias.ndim == 1:
            return self.runs.log_probs(rows, bias)
        return self.runs.log_probs([*rows, *rows], bias.repeat_interleave(len(rows), 0)).view(2, -1)


class _Likelihood(_Task):
    name = "log-probability"

    def loss(self, items: Sequence[Item], bias: Float[Tensor, "*two n"], step: int) -> Tensor:
        return -self.log_probs(items, bias).sum(-1) / sum(row.end - row.begin for (row,) in items)


class _Preference(_Task):
    name = "preference"

    def loss(self, items: Sequence[Item], bias: Float[Tensor, "*two n"], step: int) -> Tensor:
        sign = 1.0 if step == 0 else random.Random(f"{self.seed} {step}").choice((-1.0, 1.0))
        gained = self.log_probs(items, sign * bias) - self._before(items)
        margin = gained[..., 0::2] - gained[..., 1::2]
        return -torch.nn.functional.logsigmoid(sign * self.beta * margin).mean(-1)

    def _before(self, items: Sequence[Item]) -> Float[Tensor, " rows"]:
        """Without the bias; each row is run only once for this."""
        new = [item for item in items if id(item) not in self.known]  # the lists of items outlive the task
        if new:
            with torch.no_grad():
                values = self.log_probs(new, torch.zeros(site_width(self.runs.model, self.runs.site)))
            self.known.update({id(item): pair for item, pair in zip(new, values.view(-1, 2), strict=True)})
        return torch.cat([self.known[id(item)] for item in items])


def _items(model: HookedModel, targets: Sequence[str] | ContrastSet, prompts: Any) -> list[Item]:
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


def _split(items: list[Item], held_out: float, seed: int) -> tuple[list[Item], list[Item]]:
    if isinstance(held_out, bool) or not isinstance(held_out, int | float) or not 0 <= held_out < 1:
        raise SteerlensError(f"held_out must be a share from 0 to below 1, got {held_out!r}")
    if held_out == 0:
        return items, items
    if len(items) < 2:
        raise SteerlensError("one text cannot be trained and checked on; give more, or held_out=0")
    order = list(items)
    random.Random(seed).shuffle(order)
    n = min(max(1, round(held_out * len(items))), len(items) - 1)
    return order[n:], order[:n]


def _batch(items: Sequence[Item], step: int, size: int, seed: int) -> list[Item]:
    """The batch of a step (counted from 1): every text once, then all again in a new order."""
    size = min(size, len(items))
    per_round = len(items) // size
    number, place = divmod(step - 1, per_round)
    order = random.Random(f"{seed} {number}").sample(range(len(items)), len(items))
    return [items[i] for i in order[place * size : (place + 1) * size]]


def _over(items: Sequence[Item], size: int, check: Callable[[Sequence[Item]], float]) -> float:
    """The check on all items, batch by batch, weighted by what each batch averages over."""
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    weights = [sum(item[0].end - item[0].begin for item in part) if len(part[0]) == 1 else len(part) for part in parts]
    return sum(check(part) * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights)


def _vector(
    model: HookedModel, layer: int, found: Descent, runs: BiasedRuns, *, label: str, source: dict[str, Any]
) -> SteeringVector:
    record = {
        "steps": found.best_step,
        "losses": [[step, round(value, 6)] for step, value in found.losses],
        "interrupted": found.interrupted,
        "cost": {"forward": runs.forward, "backward": runs.backward},
    }
    return as_vectors(model, {layer: found.best}, label=label, source={**source, **record}, site=runs.site)[layer]


def _texts(model: HookedModel, targets: Sequence[str] | ContrastSet, prompts: Any) -> dict[str, Any]:
    if isinstance(targets, ContrastSet):
        return {"contrast": targets.record(), **template_of(model, targets.texts)}
    return {"targets": list(targets), "prompts": prompts if prompts is None else _plain(prompts)}


def _plain(prompts: Any) -> Any:
    return plain_prompt(prompts) if is_one_prompt(prompts) else [plain_prompt(prompt) for prompt in prompts]


def _name(targets: Sequence[str] | ContrastSet) -> str:
    if isinstance(targets, ContrastSet):
        return f"preference, {targets.name}"
    return repr(targets[0]) if len(targets) == 1 else f"{len(targets)} texts"
