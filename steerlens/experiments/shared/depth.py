"""Layers named in the paper are those of GPT-2-XL; another model gets the layer at the same relative depth."""

from __future__ import annotations

from steerlens.models import HookedModel

PAPER_LAYERS = 48
"""Blocks of GPT-2-XL."""


def same_depth(model: HookedModel, layer: int) -> int:
    """The layer of `model` that lies as deep as `layer` of GPT-2-XL's 48: the nearest whole number, halves up."""
    n_layers = int(model.cfg.n_layers)
    return min((2 * layer * n_layers + PAPER_LAYERS) // (2 * PAPER_LAYERS), n_layers - 1)
