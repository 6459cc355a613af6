"""A TransformerBridge in pieces, the weights of each processed when it is needed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.errors import SteerlensError
from steerlens.models.pieces import Piece, cast_in_place, make_float32, plain_pieces

_END = ("ln_final", "unembed")


def bridge_pieces(model: Any, *, processing: bool) -> list[Piece]:
    """The pieces of a bridge whose weights are those of the model that it wraps.

    Raises:
        SteerlensError: a kind of bridge whose weights cannot be processed piece by piece.
    """
    if not processing:
        return plain_pieces(model.original_model, model.cfg.n_layers)
    _check_alike(model)
    outside = {name: one for name, (_, one) in model.real_components.items() if isinstance(one, nn.Module)}
    outside = {name: one for name, one in outside.items() if any(True for _ in one.parameters())}
    start, end = [name for name in outside if name not in _END], [name for name in outside if name in _END]
    named = model.state_dict(keep_vars=True)
    pieces = [_piece(model, named, {name: outside[name] for name in names}) for names in (start, end) if names]
    return pieces + [_piece(model, named, {}, layer=layer) for layer in range(model.cfg.n_layers)]


def _check_alike(model: Any) -> None:
    """Raises SteerlensError for what TransformerLens does to the model as a whole."""
    from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter

    if type(model.adapter).postprocess_weights is not ArchitectureAdapter.postprocess_weights:
        raise SteerlensError(f"{type(model.adapter).__name__} processes more than weights")
    forms = {tuple((name, weight.shape) for name, weight in block.named_parameters()) for block in model.blocks}
    if len(forms) != 1 or len(model.blocks) != model.cfg.n_layers:
        raise SteerlensError("its blocks are not alike")


def _piece(model: Any, named: Mapping[str, Tensor], outside: dict[str, Any], *, layer: int | None = None) -> Piece:
    roots: Sequence[Any] = tuple(outside.values()) if layer is None else (model.blocks[layer],)
    modules = [module for root in roots for module in root.modules()]
    places = {
        id(value): (store, key)
        for module in modules
        for store in (module._parameters, module._buffers)
        for key, value in store.items()
        if value is not None
    }
    # Where each weight of the piece stands, by name; of all others only the shape: these closures live for long.
    here: dict[str, tuple[Any, str]] = {}
    elsewhere: dict[str, Tensor] = {}
    for name, value in named.items():
        if layer is not None and name.startswith(f"blocks.{layer}."):
            name = f"blocks.0.{name.removeprefix(f'blocks.{layer}.')}"
        elif name.startswith("blocks."):
            continue
        if id(value) in places and (layer is not None or name.split(".")[0] in outside):
            here[name] = places[id(value)]
        else:
            elsewhere[name] = torch.empty_like(value, device="meta")

    def fill() -> None:
        make_float32(modules)
        _process(model, elsewhere | {name: store[key].detach() for name, (store, key) in here.items()}, outside, layer)

    def keep(dtype: torch.dtype) -> None:
        fill()
        cast_in_place(roots, dtype)

    return Piece(tuple(roots), fill, keep)


def _process(model: Any, state: dict[str, Tensor], outside: dict[str, Any], layer: int | None) -> None:
    """TransformerLens' processing, shown a model of one block or none."""
    cfg = copy.copy(model.cfg)
    cfg.n_layers = 0 if layer is None else 1
    components = {name: model.real_components[name] for name in outside}
    if layer is not None:
        components["blocks"] = (model.real_components["blocks"][0], [model.blocks[layer]])
    seen = SimpleNamespace(
        cfg=cfg,
        adapter=model.adapter,
        original_model=model.original_model,
        blocks=[] if layer is None else [model.blocks[layer]],
        real_components=components,
        state_dict=lambda: state,
        _weights_processed=False,
    )
    seen._fold_layer_norms_into_batched_experts = lambda: type(model)._fold_layer_norms_into_batched_experts(seen)
    try:
        # Each kind of processing copies all that it is given, so it is given what it is for.
        biased = str(cfg.normalization_type).startswith("LN") or any("bias" in name for name in state)
        type(model).process_weights(seen, center_unembed="unembed" in outside, fold_value_biases=biased)
    finally:
        vars(seen).clear()  # it refers to itself, and would hold a block's weights until the garbage is collected
