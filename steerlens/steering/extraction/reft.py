"""LoReFT of rank 1: an edit by one direction, as far as a number read off the activation says, found by descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import finite_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, require_model, require_site, site_width
from steerlens.steering.conditions import Injection
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.activations import which_layers
from steerlens.steering.extraction.biased_runs import BiasedRuns, frozen
from steerlens.steering.extraction.class_directions import as_vectors
from steerlens.steering.extraction.lessons import Lessons, course_of
from steerlens.steering.extraction.objectives import (
    Item,
    Likelihood,
    Objective,
    Preference,
    items_of,
    name_of,
    recorded,
    rows_of,
)
from steerlens.steering.operations import Table, change
from steerlens.steering.prompts import PromptLike


def reft(
    model: HookedModel,
    targets: Sequence[str] | ContrastSet,
    *,
    layer: int,
    site: Site = "resid_pre",
    prompts: PromptLike | Sequence[PromptLike] | None = None,
    beta: float = 0.1,
    steps: int = 100,
    lr: float = 0.02,
    batch_size: int = 8,
    held_out: float = 0.25,
    patience: int = 5,
    check_every: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> Injection:
    """The rank-1 edit of activations x that, at every position after BOS, makes the targets as likely as possible.

    x becomes x + R(w·x + b − R·x) with a unit vector R, a vector w and a number b: LoReFT (Wu et al., arXiv 2404.03592,
    equation 2) of rank 1. Where a bias adds the same to every activation, this sets the part of x along R to a linear
    function of x. What makes the targets likely is as for `trained`: texts, or the preferred of two.

    The result is an `Injection` with operation `"reft"`: its `vector` is R, its `reads` r = w − R, its `value` b. The
    coefficient scales the edit: `0.5 * edit` goes half of the way, 0 changes nothing, 1 is as trained. It goes where
    vectors go: `steer`, `generate`, `score`, `sweep`, `attach`; `edit.save(path)` and `Injection.load` keep it. Formats
    of tools that only add vectors cannot hold it.

    Adam, from an edit that does nothing (w = R, b = 0) with R along the gradient of the first batch's loss. Steps,
    checks on held-out texts, early stopping and Ctrl-C are as for `trained`; `edit.vector.source` records the losses
    (`"losses"`) and the cost (`"cost"`: rows through the model, forward and backward).

    Args:
        targets: texts, or a paired ContrastSet (positive: preferred).
        layer: where activations are edited.
        site: at which place of the layer; see `Site`. At `"z"` the heads are edited together, as one row.
        prompts: what comes before the texts and is not trained on: one for all, or one for each.
        beta: β of BiPO, the loss of preferences; with d = −1 the edit is subtracted.
        steps, batch_size, patience, check_every: as for `trained`.
        lr: of numbers that are 1 where the edit is as long as activations are there.
        held_out: the share of texts to validate on; 0 to validate on the training texts themselves.
        seed: of the split, the batches and the signs.

    Raises:
        SteerlensError: nothing to train on, layer out of range, or no step that made the held-out texts more likely.
    """
    require_model(model)
    (chosen,) = which_layers(model, layer, None)
    check_site(site)
    require_site(model, site)
    lessons = Lessons(steps, lr, batch_size, held_out, patience, check_every, seed, progress)
    beta = finite_number("beta", beta)
    train, test = lessons.split(items_of(model, targets, prompts))
    runs = BiasedRuns(model, chosen, site)
    kind = Preference if isinstance(targets, ContrastSet) else Likelihood
    objective: Objective = kind(runs, beta, lessons.seed)
    unit = runs.unit(rows_of(train[: lessons.batch_size]))
    slope = _slope(objective, lessons.batch(train, 1), site_width(model, site))
    objective.opposite = _opposite
    runs.edit = lambda x, numbers: x + change(x, _table(numbers, unit).to(x.device, numbers.dtype), "read").to(x.dtype)
    found = lessons.learned(objective, train, test, _start(slope, unit), unit=unit)
    made = _table(found.best.double(), unit)
    source = {
        "method": "reft",
        "objective": objective.name,
        "seed": lessons.seed,
        **recorded(model, targets, prompts),
        **course_of(found, objective),
    }
    label = f"towards {name_of(targets)}"
    assert made.reads is not None
    (vector,) = as_vectors(model, {chosen: made.values}, label=label, source=source, site=site).values()
    origin: dict[str, Any] = {"label": f"w − R of {label}", "source": {"method": "reft"}}
    (reads,) = as_vectors(model, {chosen: made.reads}, site=site, **origin).values()
    return Injection(vector, operation="reft", value=float(made.targets[0]), reads=reads)


# The numbers that are trained, all of the same size: a vector along R with entries of about 1, (w − R)√n, and b by the
# length of an activation; together times the size of an activation's entry, as `descend` has it.


def _start(slope: Float[Tensor, " n"], unit: float) -> Float[Tensor, " numbers"]:
    if not 0 < float(slope.norm()) < float("inf"):
        raise SteerlensError(
            f"the gradient of the first batch has the length {float(slope.norm())}, so there is no direction to begin "
            "with; give other targets, or load the model in float32"
        )
    along = -slope / slope.norm() * len(slope) ** 0.5
    return torch.cat([along, torch.zeros_like(along), along.new_zeros(1)]) * unit


def _table(numbers: Float[Tensor, " numbers"], unit: float) -> Table:
    """R, b and w − R."""
    n = len(numbers) // 2
    along, reads, bias = (numbers / unit).split([n, n, 1])
    return Table(along / along.norm(), bias * (unit * n**0.5), reads / n**0.5)


def _opposite(numbers: Float[Tensor, " numbers"]) -> Float[Tensor, " numbers"]:
    """The edit subtracted: with −R, while what is read stays the same."""
    n = len(numbers) // 2
    return torch.cat([-numbers[:n], numbers[n:]])


def _slope(objective: Objective, items: Sequence[Item], width: int) -> Float[Tensor, " width"]:
    """The gradient of the loss with respect to a bias of zero."""
    with frozen(objective.runs.model):
        bias = torch.zeros(width, device=objective.runs.model.cfg.device, requires_grad=True)
        (slope,) = torch.autograd.grad(objective.loss(items, bias, 0), bias)
    return slope
