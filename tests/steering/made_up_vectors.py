"""Vectors of a model that never was."""

from __future__ import annotations

from typing import Any

import torch

import steerlens as sl
from steerlens.models import ModelStamp

STAMP = ModelStamp("toy", n_layers=4, d_model=8, d_vocab=100, folded=True, centred=True, sketch=tuple(range(1, 17)))


def vector(span: int = 3, *, layer: int = 1, seed: int = 0, **fields: Any) -> sl.SteeringVector:
    values = torch.randn(span, 8, generator=torch.Generator().manual_seed(seed))
    return sl.SteeringVector(values, **{"layer": layer, "model": STAMP, "label": "a", **fields})
