"""How long the residual stream usually is at each layer, and a warning where a vector is many times as long."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.extraction.activations import resid_pre
from steerlens.steering.tokens import token_ids

if TYPE_CHECKING:
    from steerlens.steering.vectors import SteeringVector

# A vector of more than so many times the stream is most of what the layers after it see.
MANY = 3.0
_PROBE = "The weather was fine that day, so they walked along the river and talked about nothing in particular."
# BOS and the first word after it draw attention in many models, and are much longer there than other tokens.
_FROM = 2
_KNOWN: WeakKeyDictionary[Any, list[float]] = WeakKeyDictionary()


def stream_norms(model: HookedModel) -> list[float]:
    """The median norm of the residual stream at the input of each layer, over the words of an ordinary sentence.

    BOS and the first word do not count. One forward pass for each model; kept as long as the model is. NaN where the
    model has no context or no tokens for such a sentence.
    """
    if model not in _KNOWN:
        layers = range(int(model.cfg.n_layers))
        try:
            ids = token_ids(model, _PROBE) if model.cfg.n_ctx >= 64 else token_ids(model, _PROBE[:20])
        except SteerlensError:
            ids = []
        if len(ids) <= _FROM:
            return [math.nan for _ in layers]
        streams = resid_pre(model, torch.tensor([ids], device=model.cfg.device), layers)
        _KNOWN[model] = [streams[layer][0, _FROM:].norm(dim=-1).median().item() for layer in layers]
    return _KNOWN[model]


def warn_of_long_ones(model: HookedModel, vectors: Iterable[SteeringVector], *, stacklevel: int) -> None:
    """Nothing is returned: one warning names the vector that is the longest beside the stream, if any is too long."""
    vectors = [one for one in vectors if one.site == "resid_pre"]  # other sites have lengths of their own
    if not vectors:
        return
    usual = stream_norms(model)
    ratios = [(one.values.norm(dim=-1).max().item() / usual[one.layer], one) for one in vectors if usual[one.layer] > 0]
    ratio, vector = max(ratios, key=lambda pair: pair[0], default=(0.0, None))
    if vector is None or not ratio > MANY:
        return
    warnings.warn(
        f"the vector {vector.label!r} is {ratio:.1f} times as long as the residual stream at layer {vector.layer} "
        f"(norms {ratio * usual[vector.layer]:.0f} and {usual[vector.layer]:.0f}): the first word after BOS and a pad "
        "are outliers in some models; give prompts of equal length that differ in a later word, use mean_difference, "
        f"or a coefficient near {1 / ratio:.1g}",
        stacklevel=stacklevel + 1,
    )
