"""Mean difference: the average last-token activation of one set of prompts minus that of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model, stamp
from steerlens.steering.extraction.activations import Layers, resid_pre, which_layers
from steerlens.steering.prompts import pad_id, pad_left, prompt_ids
from steerlens.steering.vectors import SteeringVector


@overload
def mean_difference(
    model: HookedModel,
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    layer: int,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> SteeringVector: ...


@overload
def mean_difference(
    model: HookedModel,
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    layers: Layers,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> dict[int, SteeringVector]: ...


def mean_difference(
    model: HookedModel,
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    batch_size: int = 32,
    live_hooks: bool = False,
) -> SteeringVector | dict[int, SteeringVector]:
    """The one-position vector mean(h(positives)) − mean(h(negatives)) at the last token of each prompt.

    Also known as contrastive activation addition (Rimsky et al., arXiv 2312.06681, equation 1) when the prompts come
    in pairs. Its placement is `"all"`: every position after BOS and every generated token.

    Args:
        positives, negatives: texts; the two lists may differ in length.
        layer, layers: one layer, or several from the same forward passes.
        batch_size: prompts per forward pass.
        live_hooks: let hooks that are on the model now act during extraction.

    Raises:
        SteerlensError: an empty list or prompt, layer out of range.
    """
    require_model(model)
    chosen = which_layers(model, layer, layers)
    for name, texts in (("positives", positives), ("negatives", negatives)):
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise SteerlensError(f"{name} must be a list of at least one prompt, got {texts!r:.60}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise SteerlensError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    means = [_mean_last(model, texts, chosen, batch_size, live_hooks) for texts in (positives, negatives)]
    origin = stamp(model)
    vectors = {
        one: SteeringVector(
            values=(means[0][one] - means[1][one])[None],
            layer=one,
            model=origin,
            label=f"mean difference ({len(positives)} − {len(negatives)} prompts)",
            placement="all",
            source={"method": "mean_difference", "positives": list(positives), "negatives": list(negatives)},
        )
        for one in chosen
    }
    return vectors[chosen[0]] if layer is not None else vectors


def _mean_last(
    model: HookedModel, texts: Sequence[str], layers: Sequence[int], batch_size: int, live_hooks: bool
) -> dict[int, Float[Tensor, " d_model"]]:
    total: dict[int, Tensor] = {}
    for start in range(0, len(texts), batch_size):
        rows = [prompt_ids(model, text) for text in texts[start : start + batch_size]]
        tokens, mask = pad_left(rows, pad=pad_id(model), device=model.cfg.device)
        found = resid_pre(model, tokens, layers, attention_mask=mask, live_hooks=live_hooks)
        for layer, resid in found.items():
            # float64 so that the order of batches does not show in the mean
            last = resid[:, -1].double().sum(0) if resid.device.type != "mps" else resid[:, -1].sum(0)
            total[layer] = total[layer] + last if layer in total else last
    return {layer: (value / len(texts)).to(torch.float32) for layer, value in total.items()}
