"""Weights of a HookedTransformer stored in the order in which its forward pass reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from steerlens.models.protocol import HookedModel, is_bridge

# Parameter name → the order of its axes in memory. HookedTransformer transposes and copies these weights anew in every
# forward pass (attn_linear, GatedMLP, Unembed); in this order its `.contiguous()` has nothing left to copy.
_ORDERS: dict[str, tuple[int, ...]] = {
    "W_Q": (0, 2, 1),
    "W_K": (0, 2, 1),
    "W_V": (0, 2, 1),
    "_W_K": (0, 2, 1),
    "_W_V": (0, 2, 1),
    "W_O": (2, 0, 1),
    "W_U": (1, 0),
}
_GATED = {"W_in": (1, 0), "W_gate": (1, 0), "W_out": (1, 0)}  # plain MLPs read theirs as they are


@torch.no_grad()
def fix_strides(model: HookedModel) -> None:
    """Nothing is returned: strides of a HookedTransformer's weights change, their values stay bit for bit the same.

    A decode step of one token for one row spends three quarters of its time on these copies. A bridge needs none of
    this and stays as it is.
    """
    if is_bridge(model):
        return
    gated = bool(getattr(model.cfg, "gated_mlp", False))
    for name, parameter in model.named_parameters():  # type: ignore[attr-defined]
        order = _order(name, parameter, gated)
        if order is not None:
            parameter.data = _stored_as(parameter.data, order)


def laid_out(name: str, weight: Tensor, *, gated: bool) -> Tensor:
    """The weight as `fix_strides` would store it; a copy only where it is not stored so already.

    Args:
        name: of the parameter, with its path.
        gated: whether the model's MLPs have a gate.
    """
    return _stored_as(weight, _order(name, weight, gated) or tuple(range(weight.ndim)))


def _order(name: str, weight: Tensor, gated: bool) -> tuple[int, ...] | None:
    last = name.rsplit(".", 1)[-1]
    order = _ORDERS.get(last) or (_GATED.get(last) if gated and ".mlp." in name else None)
    return order if order is not None and weight.ndim == len(order) else None


def _stored_as(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    back = tuple(order.index(axis) for axis in range(len(order)))
    return weight.permute(order).contiguous().permute(back)
