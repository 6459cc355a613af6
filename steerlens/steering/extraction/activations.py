"""Activations of token rows at a site of chosen layers, from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import layer_number, layer_numbers
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, kept_values, require_site, site_hook, without_live_hooks

Layers = Sequence[int] | Literal["all"]


@torch.no_grad()
def resid_pre(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    layers: Sequence[int],
    *,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    live_hooks: bool = False,
) -> dict[int, Float[Tensor, "batch pos d_model"]]:
    """The residual stream at the input of each of `layers`; see `activations`."""
    return activations(model, tokens, layers, attention_mask=attention_mask, live_hooks=live_hooks)


@torch.no_grad()
def activations(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    layers: Sequence[int],
    *,
    site: Site = "resid_pre",
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    live_hooks: bool = False,
) -> dict[int, Float[Tensor, "batch pos width"]]:
    """The activations at a site of each of `layers`, float32, on the model's device; at `"z"` with all heads in a row.

    One pass that stops after the last layer needed; nothing else is cached. Hooks already on the model do not act
    unless `live_hooks`.

    Raises:
        SteerlensError: a site that the model does not have.
    """
    check_site(site)
    require_site(model, site)
    names = [site_hook(layer, site) for layer in layers]
    # Stopping at l runs blocks 0 … l−1, so the input of block l is only reached by stopping after it.
    stop = max(layers) + 1
    with nullcontext() if live_hooks else without_live_hooks(model), kept_values(model, names) as kept:
        model(
            tokens,
            stop_at_layer=stop if stop < model.cfg.n_layers else None,
            return_type=None,
            **({} if attention_mask is None else {"attention_mask": attention_mask}),
        )
    found = {layer: kept.get(name) for layer, name in zip(layers, names, strict=True)}
    missing = [layer for layer, value in found.items() if value is None]
    if missing:
        raise SteerlensError(f"TransformerLens exposes nothing at {site_hook(missing[0], site)} of this model")
    # (heads have an axis of their own, and OPT's MLP lays all tokens in one row)
    return {layer: one.reshape(*tokens.shape, -1).float() for layer, one in found.items() if one is not None}


def which_layers(model: HookedModel, layer: int | None, layers: Layers | None) -> list[int]:
    """The layers asked for, checked; exactly one of `layer` and `layers` must be given.

    Raises:
        SteerlensError: neither or both, none, or out of range.
    """
    if (layer is None) == (layers is None):
        raise SteerlensError("give either layer= (one vector) or layers= (many from one pass)")
    n_layers = int(model.cfg.n_layers)
    return layer_numbers(layers, n_layers) if layer is None else [layer_number(layer, n_layers)]
