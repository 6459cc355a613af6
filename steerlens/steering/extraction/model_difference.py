"""Model difference: what training did to activations, on the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from steerlens.arguments import choice, shown
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, model_name, require_model, stamp
from steerlens.steering.extraction.activations import Layers, which_layers
from steerlens.steering.extraction.class_directions import as_vectors
from steerlens.steering.extraction.readings import mean_reading
from steerlens.steering.extraction.token_choice import Token, text_rows
from steerlens.steering.prompts import plain_prompt
from steerlens.steering.vectors import SteeringVector

Owner = Literal["before", "after"]


@overload
def model_difference(
    after: HookedModel,
    before: HookedModel,
    texts: Sequence[Any],
    *,
    layer: int,
    token: Token = ...,
    site: Site = ...,
    owner: Owner = ...,
    batch_size: int = ...,
) -> SteeringVector: ...


@overload
def model_difference(
    after: HookedModel,
    before: HookedModel,
    texts: Sequence[Any],
    *,
    layers: Layers,
    token: Token = ...,
    site: Site = ...,
    owner: Owner = ...,
    batch_size: int = ...,
) -> dict[int, SteeringVector]: ...


def model_difference(
    after: HookedModel,
    before: HookedModel,
    texts: Sequence[Any],
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    token: Token = "last",
    site: Site = "resid_pre",
    owner: Owner = "before",
    batch_size: int = 32,
) -> SteeringVector | dict[int, SteeringVector]:
    """The one-position vector mean(h_after(texts)) − mean(h_before(texts)) of two models with the same shape.

    Added to the model before fine-tuning, it moves in the direction of training; subtracted from the model after, back.
    Placement `"all"`.

    Args:
        after, before: the two models; they may differ only in their weights.
        texts: what both read; at least one.
        layer, layers: one layer, or several from the same forward passes.
        token: which token is read, or over which the mean is taken; see `Token`.
        site: where in the layer activations are read, and the vector goes; see `Site`.
        owner: the model that the vector belongs to.
        batch_size: texts per forward pass.

    Raises:
        SteerlensError: the same model twice, models with different shapes, processing or tokenizers, no texts.
    """
    require_model(after), require_model(before)
    chosen = which_layers(before, layer, layers)
    check_site(site)
    choice("owner", owner, ("before", "after"))
    if after is before:
        raise SteerlensError("after and before are the same model, so nothing differs; give two models")
    difference = stamp(before).difference(stamp(after))
    if difference is not None and not difference.startswith("the weights differ"):
        raise SteerlensError(f"the two models differ in more than weights: {difference}")
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not len(texts):
        raise SteerlensError(f"texts must be a list of at least one prompt, got {shown(texts)}")
    rows = text_rows(after, texts, token), text_rows(before, texts, token)
    if rows[0] != rows[1]:
        number = next(i for i, (one, other) in enumerate(zip(*rows, strict=True)) if one != other)
        raise SteerlensError(
            f"the two models read text {number} as different tokens; give models that share a tokenizer"
        )
    means = [
        mean_reading(*one, chosen, batch_size=batch_size, site=site) for one in zip((after, before), rows, strict=True)
    ]
    vectors = as_vectors(
        before if owner == "before" else after,
        {one: means[0][one] - means[1][one].to(means[0][one].device) for one in chosen},
        label=f"{model_name(after)} − {model_name(before)}",
        source={
            "method": "model_difference",
            "texts": [plain_prompt(text) for text in texts],
            "token": str(token),
            "owner": owner,
        },
        site=site,
    )
    return vectors[chosen[0]] if layer is not None else vectors
