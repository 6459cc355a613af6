"""A raw tensor as a steering vector, declared to belong to a model."""

from __future__ import annotations

import torch
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model, stamp
from steerlens.steering.placement import Placement
from steerlens.steering.vectors import SteeringVector


def vector_of(
    model: HookedModel, tensor: Tensor, *, layer: int, placement: Placement | None = None, label: str = "raw tensor"
) -> SteeringVector:
    """The vector with the given values at the input of a layer; its source says that it is foreign.

    Args:
        tensor: [d_model] or [pos d_model], of any dtype.
        layer: the block whose input it is added to.
        placement: by default `"all"` for one position, `"front"` for several.

    Raises:
        SteerlensError: not a tensor, a wrong width or shape, NaN, layer out of range.
    """
    require_model(model)
    if not isinstance(tensor, Tensor):
        raise SteerlensError(f"expected a torch.Tensor, got {type(tensor).__name__}; wrap it in torch.tensor(...)")
    if not tensor.is_floating_point():
        raise SteerlensError(f"a vector's tensor holds floating-point numbers, got {tensor.dtype}; convert it first")
    values = tensor.detach().to(torch.float32)
    several = values.ndim == 2 and values.shape[0] > 1
    chosen: Placement = ("front" if several else "all") if placement is None else placement
    source = {"method": "foreign", "format": "raw tensor"}
    return SteeringVector(values, layer, stamp(model), label=label, placement=chosen, source=source)
