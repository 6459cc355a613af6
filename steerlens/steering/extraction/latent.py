"""Latent vectors: the vector that makes a model produce exactly a given text (Subramani et al., arXiv 2205.05124)."""

from __future__ import annotations

import torch

from steerlens.arguments import finite_number, flag, text, whole_number
from steerlens.models import HookedModel, Site, check_site, require_model, require_site, site_width
from steerlens.steering.extraction.activations import which_layers
from steerlens.steering.extraction.biased_runs import BiasedRuns, frozen, target_rows
from steerlens.steering.extraction.class_directions import as_vectors
from steerlens.steering.extraction.descent import descend
from steerlens.steering.prompts import PromptLike, plain_prompt
from steerlens.steering.vectors import SteeringVector

# The logit margin by which every token must beat all others: greedy decoding, with its cache and its own batches,
# rounds differently from the search.
_MARGIN = 0.05


def latent(
    model: HookedModel,
    target: str,
    *,
    prompt: PromptLike,
    layer: int,
    site: Site = "resid_pre",
    steps: int = 500,
    lr: float = 0.05,
    progress: bool | None = None,
) -> SteeringVector:
    """The one-position vector under which greedy decoding from the prompt gives the target, if one was found.

    The log-probability of the target is maximised over one vector added at every position after BOS (Subramani et al.,
    arXiv 2205.05124), by Adam from zero, until each of its tokens is the most likely one by a margin.
    `vector.source["exact"]` says whether that was reached; if not, the vector is the one with the largest
    log-probability, and `source["likeliest"]` the share of tokens that are the most likely. Ctrl-C keeps the best so
    far.

    Args:
        target: the text to produce; it is taken literally, so begin it with a space where one belongs.
        prompt: the text it should follow.
        layer: where the vector is added.
        site: at which place of the layer; see `Site`.
        steps, lr: as for `trained`.

    Raises:
        SteerlensError: an empty target or prompt, layer out of range.
    """
    require_model(model)
    (chosen,) = which_layers(model, layer, None)
    check_site(site)
    require_site(model, site)
    steps, lr, target = whole_number("steps", steps, least=1), finite_number("lr", lr, above=0), text("target", target)
    progress = None if progress is None else flag("progress", progress)
    (row,) = target_rows(model, [target], [prompt])
    runs = BiasedRuns(model, chosen, site)
    start = torch.zeros(site_width(model, site), device=model.cfg.device)

    @torch.no_grad()
    def check(bias: torch.Tensor) -> float:
        log_probs, margins = runs.tokens(row, bias)
        # Exact is better than any likelihood that is not.
        return float("-inf") if float(margins.min()) > _MARGIN else -float(log_probs.mean())

    with frozen(model):
        found = descend(
            lambda bias, step: -runs.log_probs([row], bias).mean() / (row.end - row.begin),
            check,
            start,
            unit=runs.unit([row]),
            steps=steps,
            lr=lr,
            patience=steps,
            check_every=1,
            progress=progress,
        )
        with torch.no_grad():
            log_probs, margins = runs.tokens(row, found.best)
    source = {
        "method": "latent",
        "target": target,
        "prompt": plain_prompt(prompt),
        "exact": bool(margins.min() > _MARGIN),
        "likeliest": float((margins > 0).float().mean()),
        "log_prob": float(log_probs.sum()),
        "steps": found.best_step,
        "interrupted": found.interrupted,
        "cost": {"forward": runs.forward, "backward": runs.backward},
    }
    return as_vectors(model, {chosen: found.best}, label=f"latent ({target.strip()!r:.40})", source=source, site=site)[
        chosen
    ]
