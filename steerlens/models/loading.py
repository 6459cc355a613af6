"""`load_model`: the embedded model, a Hugging Face name, a directory or a live model, as a TransformerLens model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from steerlens.errors import SteerlensError
from steerlens.models.bridging import bridged, check_tokenizer, own_tokenizer
from steerlens.models.checkpoints import official_name, unavailable
from steerlens.models.devices import Device, moved, read_device, read_dtype
from steerlens.models.ends import keep_end_ids
from steerlens.models.originals import Original, find_original
from steerlens.models.protocol import HookedModel, is_bridge, require_model
from steerlens.models.quiet import quiet
from steerlens.models.spread import check_spread, load_spread
from steerlens.models.strides import fix_strides
from steerlens.models.weight_sketch import note_origin


def load_model(
    source: Any = "demo",
    *,
    tokenizer: Any = None,
    base: Any = None,
    device: Device = "auto",
    dtype: torch.dtype | str = torch.float32,
    bridge: bool | None = None,
    processing: bool | None = None,
    strides: bool = True,
    device_map: str | Mapping[str, Any] | None = None,
) -> HookedModel:
    """A TransformerLens model, ready to steer.

    Args:
        source: `"demo"` (the embedded model; never touches a network), `"smollm2"` (after `steerlens get smollm2`), a
            Hugging Face name (`"gpt2-xl"`), a local directory in Hugging Face layout, a GGUF file, the directory of a
            PEFT adapter (merged into its base), a Hugging Face model or PeftModel object (give `tokenizer` too; it
            stays as it is), or a live HookedTransformer or TransformerBridge (returned as it is). A model with packed
            weights (bitsandbytes) becomes a bridge around the weights as they are.
        tokenizer: a Hugging Face tokenizer; needed for a Hugging Face model object, else found beside the weights.
        base: the model under an adapter's directory, in any of the forms above; by default the one that it names.
        device: `"auto"` takes cuda, then mps, then cpu. Not with `device_map`.
        dtype: of the weights and activations; float32, bfloat16 or float16. Weights are processed in float32 first.
        bridge: True for a TransformerBridge. By default a HookedTransformer where TransformerLens has one (3.x),
            a bridge under 4.x.
        processing: fold layer norms, centre the writing weights and the unembedding, as HookedTransformer does by
            default (a bridge gets the same through its compatibility mode, so that numbers agree). Outputs are the
            same probabilities either way; the residual stream differs, so vectors of the two do not mix. By default
            True, but not with `device_map`.
        strides: store a HookedTransformer's weights in the order in which its forward pass reads them: bitwise the
            same values, much faster decoding (see `steerlens.models.strides`). Live models are returned as they are.
        device_map: for a model too large for one device: `"auto"`, `"balanced"` or a dictionary, as in Hugging Face's
            `from_pretrained`. The model, named or in a directory, is read straight onto its devices in `dtype`, and is
            a bridge with unprocessed weights (folding would need all of it in float32 at one place).

    Raises:
        SteerlensError: unknown name (with near names; says when a network is needed and missing), an architecture
            that TransformerLens does not convert, a missing tokenizer, a device or dtype that is not there, a
            `device_map` that leaves part of the model on the disk or comes with `device`, `bridge=False` or
            `processing=True`.
    """
    target_device, target_dtype = read_device(device), read_dtype(dtype)
    if tokenizer is not None:
        check_tokenizer(tokenizer)  # before a large model is read
    if device_map is not None:
        check_spread(source, device_map, device=device, bridge=bridge, processing=processing)
        with quiet(), torch.random.fork_rng(devices=[]):
            return load_spread(source, tokenizer, target_dtype, device_map)
    if isinstance(source, torch.nn.Module) and hasattr(source, "hook_dict"):
        return _live(source, device, target_device, bridge)
    # Weights are drawn at random before they are read; the caller's random state is none of our business.
    with quiet(), torch.random.fork_rng(devices=[]):
        use_bridge, processing = _choose_bridge(bridge), processing is None or processing
        model: Any
        origin = None
        if isinstance(source, str | Path) and not use_bridge and _is_of_transformer_lens(source):
            model = _only_in_transformer_lens(str(source), tokenizer, target_device, target_dtype, processing)
        else:
            original = find_original(source, tokenizer, base=base)
            model = _converted(original, use_bridge, processing)
            for to in (target_dtype, target_device):
                if to not in (torch.float32, torch.device("cpu")):
                    model = moved(model, to)
            origin = original.sketch
        if strides:
            fix_strides(model)
        note_origin(model, origin)
        return model.eval()


def _live(source: Any, device: Device, target_device: torch.device, bridge: bool | None) -> HookedModel:
    """A live TransformerLens model, if it is what was asked for."""
    model = require_model(source)
    if bridge is not None and bridge != is_bridge(model):
        raise SteerlensError(
            f"bridge={bridge} was asked for but the model is a {type(model).__name__} already; "
            "load it from its Hugging Face model instead"
        )
    if device != "auto" and torch.device(model.cfg.device).type != target_device.type:
        raise SteerlensError(
            f"device={str(device)!r} was asked for but the model is live on {model.cfg.device}; "
            "move it yourself with model.to(...)"
        )
    return model


def _converted(original: Original, use_bridge: bool, processing: bool) -> Any:
    """An original as a HookedTransformer or bridge, in float32 on the CPU."""
    tokenizer = own_tokenizer(original.tokenizer, original.name)
    # Folding in half precision would round twice; convert in float32, cast at the end.
    hf_model = original.take().to("cpu", torch.float32).eval().requires_grad_(False)
    if use_bridge:
        return bridged(hf_model, tokenizer, name=original.name, processing=processing, device="cpu")
    from steerlens.models.conversion import hooked_transformer

    model = hooked_transformer(hf_model, tokenizer, name=original.name, processing=processing)
    keep_end_ids(model, hf_model)
    return model


def _is_of_transformer_lens(source: str | Path) -> bool:
    """Whether a name stands for a checkpoint in TransformerLens' own format."""
    if source == "demo" or Path(source).is_dir():
        return False
    return (official_name(str(source)) or "").startswith(("NeelNanda", "ArthurConmy", "Baidicoot"))


def _only_in_transformer_lens(
    name: str, tokenizer: Any, device: torch.device, dtype: torch.dtype, processing: bool
) -> HookedModel:
    """A model that exists only in TransformerLens' own format."""
    from transformer_lens import HookedTransformer

    load = HookedTransformer.from_pretrained if processing else HookedTransformer.from_pretrained_no_processing
    try:
        return load(name, device=str(device), dtype=dtype, tokenizer=tokenizer)
    except (OSError, ValueError) as error:
        raise unavailable(name, error) from None


def _choose_bridge(bridge: bool | None) -> bool:
    try:
        from transformer_lens import HookedTransformer  # noqa: F401
    except ImportError:
        if bridge is False:
            from importlib.metadata import version

            raise SteerlensError(
                f"TransformerLens {version('transformer-lens')} has no HookedTransformer; "
                "install transformer-lens<4, or load a bridge"
            ) from None
        return True
    return bool(bridge)
