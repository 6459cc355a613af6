"""`load_model`: the embedded model, a Hugging Face name, a directory or a live model, as a TransformerLens model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from steerlens.arguments import flag, whole_number
from steerlens.errors import SteerlensError
from steerlens.models.bridging import check_tokenizer
from steerlens.models.checkpoints import directory, official_name, unavailable
from steerlens.models.devices import Device, auto_dtype, moved, read_device, read_dtype
from steerlens.models.originals import find_original
from steerlens.models.protocol import HookedModel, is_bridge, require_model
from steerlens.models.proved import has_hooked_transformer, proved, tell
from steerlens.models.quiet import quiet, same_random_state
from steerlens.models.sources import note_source
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
    n_ctx: int | None = None,
    prove: bool = True,
) -> HookedModel:
    """A TransformerLens model, ready to steer, that computes what the Hugging Face model computes it is made from.

    Memory: models of 5·10⁷ parameters and more are converted and proved with one block at a time in float32. Measured
    on a Llama of 275 MB in bfloat16 (scripts/loading_memory.py), the peak is about 2.5 times the checkpoint with
    processed weights, 1.3 (bridge) to 1.7 without; the last need not be copied and stay mapped from the file. A model
    of 8·10⁹ parameters (16 GB in bfloat16) would by that need 40 GB processed, 21 to 27 GB unprocessed.

    Loading starts no process and refuses checkpoints that do not hold all the weights of a language model.

    Args:
        source: `"demo"` (the embedded model; never touches a network), `"smollm2"` (after `steerlens get smollm2`), a
            Hugging Face name (`"gpt2-xl"`), a local directory in Hugging Face layout, a GGUF file, the directory of a
            PEFT adapter (merged into its base), a Hugging Face model or PeftModel object (give `tokenizer` too; it
            stays as it is), or a live HookedTransformer or TransformerBridge (returned as it is). A model with packed
            weights (bitsandbytes, 4 or 8 bits) becomes a bridge around the weights as they are, where and in the
            dtype that Hugging Face puts them.
        tokenizer: a Hugging Face tokenizer; needed for a Hugging Face model object, else found beside the weights.
        base: the model under an adapter's directory, in any of the forms above; by default the one that it names.
        device: `"auto"` takes cuda, then mps, then cpu. Not with `device_map`.
        dtype: of the weights and activations; float32, bfloat16 or float16. Weights are processed in float32 first.
            `"auto"` takes bfloat16 for models of 10⁸ parameters and more where the device computes in it by itself
            (and says so), else float32. Of models spread by `device_map` the size does not matter.
        bridge: True for a TransformerBridge. By default a HookedTransformer where TransformerLens has one (3.x) that
            is right, else a bridge.
        processing: fold layer norms, centre the writing weights and the unembedding, as HookedTransformer does by
            default (a bridge gets the same through its compatibility mode, so that numbers agree). Outputs are the
            same probabilities either way; the residual stream differs, so vectors of the two do not mix. By default
            True, but not with `device_map`.
        strides: store a HookedTransformer's weights in the order in which its forward pass reads them: bitwise the
            same values, much faster decoding (see `steerlens.models.strides`). Live models are returned as they are.
        device_map: for a model too large for one device: `"auto"`, `"balanced"` or a dictionary, as in Hugging Face's
            `from_pretrained`. The model, named or in a directory, is read straight onto its devices in `dtype`, and is
            a bridge with unprocessed weights (folding would need all of it in float32 at one place).
        n_ctx: positions at most; by default as many as the model was made for.
        prove: compare the converted model with the original before it is handed out, on 96 random tokens: their
            log-probabilities with and without a cache, and the residual stream of each layer (see
            `steerlens.models.proof`). A HookedTransformer that is wrong is replaced by a bridge, processed weights that
            are wrong by unprocessed ones, with a warning that says by how much; unless `bridge` or `processing` asks
            for them. Costs a few forward passes. False takes what TransformerLens makes of it.

    Raises:
        SteerlensError: unknown name (with near names; says when a network is needed and missing), weights that are
            missing or too many, a missing tokenizer or package, a device or dtype that is not there, a model that
            TransformerLens does not convert, or does not convert rightly, or that is no decoder-only language model;
            a `device_map` that leaves part of the model on the disk or comes with `device`, `bridge=False` or
            `processing=True`.
    """
    bridge = None if bridge is None else flag("bridge", bridge)
    processing = None if processing is None else flag("processing", processing)
    strides, prove = flag("strides", strides), flag("prove", prove)
    n_ctx = None if n_ctx is None else whole_number("n_ctx", n_ctx, least=1)
    target_device, target_dtype = read_device(device), read_dtype(dtype)
    if tokenizer is not None:
        check_tokenizer(tokenizer)  # before a large model is read
    if device_map is not None:
        check_spread(source, device_map, device=device, bridge=bridge, processing=processing)
        if target_dtype is None:
            target_dtype, note = auto_dtype(target_device, None)
            tell([note] if note else [])
        with quiet(), same_random_state():
            spread = load_spread(source, tokenizer, target_dtype, device_map, n_ctx=n_ctx, prove=prove)
        note_source(spread, source, device_map=device_map, n_ctx=n_ctx, prove=None if prove else False)
        return spread
    if isinstance(source, torch.nn.Module) and hasattr(source, "hook_dict"):
        if n_ctx is not None:
            raise SteerlensError("n_ctx does not go with a live model, which stays as it is; set model.cfg.n_ctx")
        return _live(source, device, target_device, bridge)
    model: Any
    notes: list[str] = []
    origin = None
    # Weights are drawn at random before they are read; the caller's random state is none of our business.
    with quiet(), same_random_state():
        if isinstance(source, str | Path) and _is_of_transformer_lens(source, bridge):
            model = _only_in_transformer_lens(
                str(source), tokenizer, target_device, target_dtype or torch.float32, processing is not False
            )
        else:
            original = find_original(source, tokenizer, base=base)
            chosen: dict[str, torch.dtype] = {} if target_dtype is None else {"dtype": target_dtype}

            def final_dtype(model: Any) -> torch.dtype:
                if not chosen:
                    size = sum(weight.numel() for weight in model.parameters())
                    chosen["dtype"], note = auto_dtype(target_device, size)
                    notes.extend([note] if note and not original.as_it_is else [])
                return chosen["dtype"]

            model, said = proved(
                original, bridge=bridge, processing=processing, n_ctx=n_ctx, prove=prove, dtype=final_dtype
            )
            for to in (final_dtype(model), target_device):
                if to not in (torch.float32, torch.device("cpu")) and not original.as_it_is:
                    model = moved(model, to)
            notes = said + notes
            if original.as_it_is and device != "auto" and torch.device(model.cfg.device).type != target_device.type:
                raise SteerlensError(
                    f"device={str(device)!r} was asked for but this model is on {model.cfg.device} and stays there, "
                    f"since {original.as_it_is}; leave device out"
                )
            origin = original.sketch
        if strides:
            fix_strides(model)
        note_origin(model, origin)
        note_source(model, source, base=base, n_ctx=n_ctx, prove=None if prove else False)
    tell(notes)
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


def _is_of_transformer_lens(source: str | Path, bridge: bool | None) -> bool:
    """Whether a name stands for a checkpoint in TransformerLens' own format, to be read as a HookedTransformer."""
    if bridge or source == "demo" or directory(source) or not has_hooked_transformer(bridge):
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
