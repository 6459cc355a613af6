"""A model over several devices: a bridge whose weights are read straight to where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steerlens.errors import SteerlensError, first_line
from steerlens.models.bridge_pieces import bridge_pieces
from steerlens.models.bridging import bridged, own_tokenizer
from steerlens.models.checkpoints import read_checkpoint
from steerlens.models.context import check_context, set_context
from steerlens.models.devices import Device, read_device
from steerlens.models.pieces import plain_pieces, ready_when_called
from steerlens.models.proof import Proof, Reference, compare, keep_proof, reference
from steerlens.models.protocol import HookedModel
from steerlens.models.weight_sketch import note_origin, sketch_weights

_DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def check_spread(source: Any, device_map: Any, *, device: Device, bridge: bool | None, processing: bool | None) -> None:
    """Raises SteerlensError where a `device_map` does not go with the other arguments."""
    if not isinstance(source, str | Path):
        raise SteerlensError(
            f"device_map reads a model onto several devices, but a {type(source).__name__} is in memory already; "
            "give its name or directory"
        )
    if isinstance(device_map, str) and device_map not in _DEVICE_MAPS:
        read_device(device_map)
    elif not isinstance(device_map, str) and not (isinstance(device_map, Mapping) and device_map):
        raise SteerlensError(
            f"device_map must be one of {', '.join(map(repr, _DEVICE_MAPS))}, a device, or a dictionary from modules "
            f"to devices, got {device_map!r}"
        )
    for name, given, excluded in (
        ("device", device, device != "auto"),
        ("bridge", bridge, bridge is False),
        ("processing", processing, processing is True),
    ):
        if excluded:
            raise SteerlensError(
                f"{name}={given!r} does not go with device_map, which makes a bridge with unprocessed weights on the "
                f"devices of the map; leave {name} out"
            )


def load_spread(
    source: str | Path, tokenizer: Any, dtype: torch.dtype, device_map: Any, *, n_ctx: int | None, prove: bool
) -> HookedModel:
    """A bridge over several devices."""
    hf_model, tokenizer, name = read_checkpoint(source, tokenizer, dtype=dtype, device_map=device_map)
    if any(weight.is_meta for weight in hf_model.parameters()):
        raise SteerlensError(
            f"device_map leaves part of {name!r} on the disk, out of which TransformerLens cannot run; "
            "give devices that have room for all of it, or a smaller dtype"
        )
    hf_model = hf_model.eval().requires_grad_(False)
    origin = sketch_weights(hf_model.named_parameters())
    check_context(hf_model.config, n_ctx)
    tokenizer, kind = own_tokenizer(tokenizer, name), type(hf_model).__name__
    expected = _expected(hf_model, tokenizer) if prove else None
    try:
        model = bridged(hf_model, tokenizer, name=name, processing=False, dtype=dtype)
    except ValueError as error:  # as for parts on the CPU beside others on a GPU
        raise SteerlensError(f"TransformerLens does not take this device_map: {first_line(error)}") from None
    note_origin(model, origin)
    model = model.eval()
    set_context(model, hf_model.config, n_ctx)
    if expected is not None:
        proof = _compared(model, expected)
        if not proof.holds:
            raise SteerlensError(f"TransformerLens does not compute what this {kind} computes: {proof.where}")
        keep_proof(model, proof)
    return model


def _expected(hf_model: Any, tokenizer: Any) -> Reference:
    """What the original says to the probe: in float32, one block at a time, where that can be done."""
    if _dtype(hf_model) != torch.float32:
        with suppress(
            Exception
        ):  # as many kinds as models are unlike others; in its own dtype it runs, or says why not
            layers = hf_model.config.get_text_config().num_hidden_layers
            with ready_when_called(plain_pieces(hf_model, layers), hf_model):
                return reference(hf_model, tokenizer, in_float32=True)
    return reference(hf_model, tokenizer)


def _compared(model: Any, expected: Reference) -> Proof:
    """How far the bridge is from that."""
    dtype = model.cfg.dtype
    if _dtype(model.original_model) != torch.float32 and not expected.half:
        try:
            model.cfg.dtype = torch.float32
            with ready_when_called(bridge_pieces(model, processing=False), model, model.original_model):
                return compare(model, expected, processed=False, steps=1)
        except Exception:  # likewise; then no more can be asked for than half precision gives
            expected = replace(expected, half=True)
        finally:
            model.cfg.dtype = dtype
    return compare(model, expected, processed=False)


def _dtype(hf_model: Any) -> torch.dtype:
    return next((weight.dtype for weight in hf_model.parameters() if weight.is_floating_point()), torch.float32)
