"""Trained vectors: a bias at one layer by descent, towards texts or towards the preferred one of two."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from steerlens.arguments import choice, finite_number
from steerlens.models import HookedModel, Site, check_site, require_model, require_site, site_width
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.activations import which_layers
from steerlens.steering.extraction.biased_runs import BiasedRuns
from steerlens.steering.extraction.class_directions import as_vectors
from steerlens.steering.extraction.descent import Gradient
from steerlens.steering.extraction.lessons import Lessons, course_of
from steerlens.steering.extraction.objectives import Likelihood, Preference, items_of, name_of, recorded, rows_of
from steerlens.steering.prompts import PromptLike
from steerlens.steering.vectors import SteeringVector

_STEPS = {"exact": 100, "none": 1000}
_RATES = {"exact": 0.02, "none": 0.01}


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
    lessons = Lessons(
        steps=_STEPS[gradient] if steps is None else steps,
        lr=_RATES[gradient] if lr is None else lr,
        batch_size=batch_size,
        held_out=held_out,
        patience=patience,
        check_every=check_every,
        seed=seed,
        progress=progress,
    )
    beta = finite_number("beta", beta)
    train, test = lessons.split(items_of(model, targets, prompts))
    runs = BiasedRuns(model, chosen, site)
    objective = (Preference if isinstance(targets, ContrastSet) else Likelihood)(runs, beta, lessons.seed)
    unit = runs.unit(rows_of(train[: lessons.batch_size]))
    start = torch.zeros(site_width(model, site), device=model.cfg.device)
    found = lessons.learned(objective, train, test, start, unit=unit, gradient=gradient)
    source = {
        "method": "trained",
        "objective": objective.name,
        "gradient": gradient,
        "seed": lessons.seed,
        **recorded(model, targets, prompts),
        **course_of(found, objective),
    }
    label = f"trained ({name_of(targets)})"
    return as_vectors(model, {chosen: found.best}, label=label, source=source, site=site)[chosen]
