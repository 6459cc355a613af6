"""Mean difference: the average activation of one set of prompts minus that of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from steerlens.arguments import flag, listed, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, for_one_thread, heads_at, require_model, stamp
from steerlens.steering.chats import template_of
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.activations import Layers, which_layers
from steerlens.steering.extraction.readings import mean_reading
from steerlens.steering.extraction.token_choice import Token, contrast_rows, text_rows
from steerlens.steering.prompts import plain_prompt
from steerlens.steering.vectors import SteeringVector


@overload
def mean_difference(
    model: HookedModel,
    positives: Sequence[Any] | ContrastSet,
    negatives: Sequence[Any] | None = ...,
    *,
    layer: int,
    token: Token = ...,
    site: Site = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> SteeringVector: ...


@overload
def mean_difference(
    model: HookedModel,
    positives: Sequence[Any] | ContrastSet,
    negatives: Sequence[Any] | None = ...,
    *,
    layers: Layers,
    token: Token = ...,
    site: Site = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> dict[int, SteeringVector]: ...


@for_one_thread
def mean_difference(
    model: HookedModel,
    positives: Sequence[Any] | ContrastSet,
    negatives: Sequence[Any] | None = None,
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    token: Token = "last",
    site: Site = "resid_pre",
    batch_size: int = 32,
    live_hooks: bool = False,
) -> SteeringVector | dict[int, SteeringVector]:
    """The one-position vector mean(h(positives)) − mean(h(negatives)) at one token of each prompt.

    For pairs, this is the mean of their differences: contrastive activation addition (Rimsky et al., arXiv
    2312.06681), which reads the answer's letter (`token="differing"`). Its placement is `"all"`: every position after
    BOS and every generated token.

    Args:
        positives, negatives: texts, chats or token ids; the two lists may differ in length. Or one ContrastSet.
        layer, layers: one layer, or several from the same forward passes.
        token: which token is read, or over which the mean is taken; see `Token`. Lists have no pairs: `"differing"`
            and `"completion"` need a ContrastSet.
        site: where in the layer the activations are read, and the vector goes; see `Site`.
        batch_size: prompts per forward pass.
        live_hooks: let hooks already on the model act during extraction.

    Raises:
        SteerlensError: an empty list or prompt, layer out of range, a prompt without the token.
    """
    require_model(model)
    chosen = which_layers(model, layer, layers)
    check_site(site)
    live_hooks = flag("live_hooks", live_hooks)
    batch_size = whole_number("batch_size", batch_size, least=1)
    if isinstance(positives, ContrastSet):
        if negatives is not None:
            raise SteerlensError("give a ContrastSet, or two lists of prompts, not both")
        rows = contrast_rows(model, positives, token)
        label = f"mean difference ({positives.name})"
        source: dict[str, Any] = {"contrast": positives.record(), **template_of(model, positives.texts)}
    else:
        positives = listed("positives", positives, of="at least one prompt")
        negatives = listed("negatives", negatives, of="at least one prompt")
        if not positives or not negatives:
            name = "negatives" if positives else "positives"
            raise SteerlensError(f"{name} must be a list of at least one prompt, got []")
        rows = text_rows(model, positives, token), text_rows(model, negatives, token)
        label = f"mean difference ({len(positives)} − {len(negatives)} prompts)"
        sides = [[plain_prompt(prompt) for prompt in side] for side in (positives, negatives)]
        source = dict(zip(("positives", "negatives"), sides, strict=True))
        source |= template_of(model, [*positives, *negatives])
    means = [
        mean_reading(model, side, chosen, site=site, batch_size=batch_size, live_hooks=live_hooks) for side in rows
    ]
    origin = stamp(model)
    vectors = {
        one: SteeringVector(
            values=(means[0][one] - means[1][one])[None],
            layer=one,
            model=origin,
            label=label,
            placement="all",
            source={"method": "mean_difference", "token": str(token), **source},
            site=site,
            heads=heads_at(model, site),
        )
        for one in chosen
    }
    return vectors[chosen[0]] if layer is not None else vectors
