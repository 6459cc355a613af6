"""Activation Addition: the padded difference of two prompts (Turner et al., arXiv 2308.10248)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch

from steerlens.arguments import flag
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, for_one_thread, heads_at, require_model, stamp
from steerlens.steering.chats import template_of
from steerlens.steering.extraction.activations import Layers, activations, which_layers
from steerlens.steering.extraction.stream_norms import warn_of_long_ones
from steerlens.steering.pairs import PromptPair
from steerlens.steering.prompts import PromptLike, is_one_prompt, plain_prompt, prompt_text
from steerlens.steering.vectors import SteeringVector


@overload
def actadd(
    model: HookedModel,
    positive: PromptLike | PromptPair | Sequence[PromptPair],
    negative: PromptLike | None = ...,
    *,
    layer: int,
    pad: str = ...,
    site: Site = ...,
    live_hooks: bool = ...,
) -> SteeringVector: ...


@overload
def actadd(
    model: HookedModel,
    positive: PromptLike | PromptPair | Sequence[PromptPair],
    negative: PromptLike | None = ...,
    *,
    layers: Layers,
    pad: str = ...,
    site: Site = ...,
    live_hooks: bool = ...,
) -> dict[int, SteeringVector]: ...


@for_one_thread
def actadd(
    model: HookedModel,
    positive: PromptLike | PromptPair | Sequence[PromptPair],
    negative: PromptLike | None = None,
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    pad: str = "space",
    site: Site = "resid_pre",
    live_hooks: bool = False,
) -> SteeringVector | dict[int, SteeringVector]:
    """The steering vector h₊ − h₋ of a prompt pair at the input of a layer, with coefficient 1.

    `h₊`, `h₋` are the activations of the two prompts at `blocks.{layer}.hook_resid_pre`, the shorter one padded on
    the right (arXiv 2308.10248, Algorithm 1). Positions before the first token that differs, BOS among them, are
    exactly 0: a causal model cannot tell the prompts apart there. For several pairs it is the mean of their vectors.
    A warning tells of a vector that is more than three times as long as the residual stream is at its layer.

    Args:
        positive: p₊ (a text, a chat or token ids), or a whole PromptPair, or several with the same number of tokens
            after padding.
        negative: p₋.
        layer: one layer; returns one vector.
        layers: several, or `"all"`; returns {layer: vector} from one forward pass.
        pad: `"space"` or a text of one token.
        site: where in the layer the activations are read, and the vector goes; see `Site`.
        live_hooks: let hooks already on the model (yours, or an enclosing `steer`) act during extraction.

    Raises:
        SteerlensError: layer out of range, prompts that tokenise to nothing or do not fit the context, pairs of
            different lengths.
    """
    require_model(model)
    live_hooks = flag("live_hooks", live_hooks)
    pairs = _pairs(positive, negative, pad)
    chosen = which_layers(model, layer, layers)
    padded = [pair.padded(model) for pair in pairs]
    widths = [one.ids.shape[1] for one in padded]
    if len(set(widths)) > 1:
        number = next(i for i, width in enumerate(widths) if width != widths[0])
        raise SteerlensError(
            f"pair 0 ({pairs[0]}) has {widths[0]} tokens after padding and pair {number} ({pairs[number]}) has "
            f"{widths[number]}, so their vectors do not line up; give pairs of equal length, or use mean_difference"
        )
    ids = torch.cat([one.ids for one in padded])
    found = activations(model, ids, chosen, site=site, live_hooks=live_hooks)
    # True from the first differing token on.
    differs = (ids[0::2] != ids[1::2]).int().cummax(1).values.bool()[..., None]
    origin, tokens = stamp(model), ids.tolist()
    vectors = {
        one: SteeringVector(
            # Two rows of one batch may round differently even on equal input: the shared prefix is set to zero exactly.
            # (Activations are on the device of their layer, which need not be that of the tokens.)
            values=torch.where(differs.to(rows.device), rows[0::2] - rows[1::2], 0.0).mean(0),
            layer=one,
            model=origin,
            label=_label(pairs),
            source={"method": "actadd", **_record(model, pairs), "tokens": tokens},
            site=site,
            heads=heads_at(model, site),
        )
        for one, rows in found.items()
    }
    warn_of_long_ones(model, vectors.values(), stacklevel=3)  # of the caller, behind `for_one_thread`
    return vectors[chosen[0]] if layer is not None else vectors


def _pairs(positive: Any, negative: PromptLike | None, pad: str) -> list[PromptPair]:
    if not isinstance(positive, PromptPair) and (is_one_prompt(positive) or not isinstance(positive, Sequence)):
        if negative is None:
            raise SteerlensError('the negative prompt is missing; give actadd(model, "Love", "Hate", layer=…)')
        return [PromptPair(positive, negative, pad)]
    if negative is not None:
        raise SteerlensError("give a PromptPair, or two prompts, not both")
    pairs: list[PromptPair] = [positive] if isinstance(positive, PromptPair) else list(positive)
    if not pairs:
        raise SteerlensError("the list of pairs is empty; give at least one PromptPair")
    for number, pair in enumerate(pairs):
        if not isinstance(pair, PromptPair):
            raise SteerlensError(f"pair {number} must be a PromptPair, got {type(pair).__name__}")
    return pairs


def _label(pairs: Sequence[PromptPair]) -> str:
    sides = [prompt_text(prompt) for prompt in (pairs[0].positive, pairs[0].negative)]
    one = " − ".join(text.strip() or repr(text) for text in sides)
    return one if len(pairs) == 1 else f"mean of {one} and {len(pairs) - 1} more"


def _record(model: HookedModel, pairs: Sequence[PromptPair]) -> dict[str, Any]:
    sides = [[plain_prompt(pair.positive), plain_prompt(pair.negative), pair.pad] for pair in pairs]
    template = template_of(model, [prompt for pair in pairs for prompt in (pair.positive, pair.negative)])
    if len(pairs) == 1:
        return dict(zip(("positive", "negative", "pad"), sides[0], strict=True)) | template
    return {"pairs": sides, **template}
