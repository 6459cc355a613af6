"""Activation Addition: the padded difference of two prompts (Turner et al., arXiv 2308.10248)."""

from __future__ import annotations

from typing import overload

import torch

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model, stamp
from steerlens.steering.extraction.activations import Layers, resid_pre, which_layers
from steerlens.steering.prompts import PromptPair
from steerlens.steering.vectors import SteeringVector


@overload
def actadd(
    model: HookedModel,
    positive: str | PromptPair,
    negative: str | None = ...,
    *,
    layer: int,
    pad: str = ...,
    live_hooks: bool = ...,
) -> SteeringVector: ...


@overload
def actadd(
    model: HookedModel,
    positive: str | PromptPair,
    negative: str | None = ...,
    *,
    layers: Layers,
    pad: str = ...,
    live_hooks: bool = ...,
) -> dict[int, SteeringVector]: ...


def actadd(
    model: HookedModel,
    positive: str | PromptPair,
    negative: str | None = None,
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    pad: str = "space",
    live_hooks: bool = False,
) -> SteeringVector | dict[int, SteeringVector]:
    """The steering vector h₊ − h₋ of a prompt pair at the input of a layer, with coefficient 1.

    `h₊`, `h₋` are the activations of the two prompts at `blocks.{layer}.hook_resid_pre`, the shorter one padded on
    the right (arXiv 2308.10248, Algorithm 1). Positions before the first token that differs, BOS among them, are
    exactly 0: a causal model cannot tell the prompts apart there.

    Args:
        positive: p₊, or a whole PromptPair.
        negative: p₋.
        layer: one layer; returns one vector.
        layers: several, or `"all"`; returns {layer: vector} from one forward pass.
        pad: `"space"` or a text of one token.
        live_hooks: let hooks that are on the model now (yours, or an enclosing `steer`) act during extraction.

    Raises:
        SteerlensError: layer out of range, prompts that tokenise to nothing or do not fit the context.
    """
    require_model(model)
    if isinstance(positive, PromptPair):
        if negative is not None:
            raise SteerlensError("give a PromptPair, or two texts, not both")
        pair = positive
    else:
        if negative is None:
            raise SteerlensError('the negative prompt is missing; give actadd(model, "Love", "Hate", layer=…)')
        pair = PromptPair(positive, negative, pad)
    chosen = which_layers(model, layer, layers)
    padded = pair.padded(model)
    activations = resid_pre(model, padded.ids, chosen, live_hooks=live_hooks)
    # True from the first differing token on.
    differs = (padded.ids[0] != padded.ids[1]).int().cummax(0).values.bool()[:, None]
    origin, tokens = stamp(model), padded.ids.tolist()
    vectors = {
        one: SteeringVector(
            # Two rows of one batch may round differently even on equal input: the shared prefix is zero by law.
            # (Activations are on the device of their layer, which need not be that of the tokens.)
            values=torch.where(differs.to(both.device), both[0] - both[1], 0.0),
            layer=one,
            model=origin,
            label=f"{pair.positive.strip() or repr(pair.positive)} − {pair.negative.strip() or repr(pair.negative)}",
            source={
                "method": "actadd",
                "positive": pair.positive,
                "negative": pair.negative,
                "pad": pair.pad,
                "tokens": tokens,
            },
        )
        for one, both in activations.items()
    }
    return vectors[chosen[0]] if layer is not None else vectors
