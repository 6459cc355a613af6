"""`load_model`: the embedded model, a Hugging Face name, a directory or a live model, as a TransformerLens model."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from steerlens.errors import SteerlensError
from steerlens.models.checkpoints import first_line, official_name, read_checkpoint, unavailable
from steerlens.models.protocol import HookedModel, is_bridge, require_model
from steerlens.models.strides import fix_strides

Device = Literal["auto", "cuda", "mps", "cpu"] | str | torch.device
_DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    source: Any = "demo",
    *,
    tokenizer: Any = None,
    device: Device = "auto",
    dtype: torch.dtype | str = torch.float32,
    bridge: bool | None = None,
    processing: bool | None = None,
    strides: bool = True,
    device_map: str | Mapping[str, Any] | None = None,
) -> HookedModel:
    """A TransformerLens model, ready to steer.

    Args:
        source: `"demo"` (the embedded model; never touches a network), a Hugging Face name (`"gpt2-xl"`), a local
            directory in Hugging Face layout, a Hugging Face model object (give `tokenizer` too), or a live
            HookedTransformer or TransformerBridge (returned as it is).
        tokenizer: a Hugging Face tokenizer; needed for a Hugging Face model object, else found beside the weights.
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
    target_device, target_dtype = _device(device), _dtype(dtype)
    if device_map is not None:
        _check_spread(source, device_map, device=device, bridge=bridge, processing=processing)
        if tokenizer is not None:
            _check_tokenizer(tokenizer)  # before a large model is read
        with _quiet(), torch.random.fork_rng(devices=[]):
            return _load_spread(source, tokenizer, target_dtype, device_map)
    processing = processing is None or processing
    if isinstance(source, torch.nn.Module) and hasattr(source, "hook_dict"):
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
    # Weights are drawn at random before they are read; the caller's random state is none of our business.
    with _quiet(), torch.random.fork_rng(devices=[]):
        use_bridge = _choose_bridge(bridge)
        if isinstance(source, torch.nn.Module) and hasattr(source, "config"):
            if tokenizer is None:
                raise SteerlensError(
                    f"a {type(source).__name__} object came without a tokenizer; "
                    "call load_model(model, tokenizer=AutoTokenizer.from_pretrained(...))"
                )
            if len(devices := set(getattr(source, "hf_device_map", {}).values())) > 1:
                raise SteerlensError(
                    f"this {type(source).__name__} is spread over {len(devices)} devices and cannot be copied; "
                    "give its name or directory and device_map"
                )
            # The bridge wraps in place and processing rewrites weights: the caller's model stays as it is.
            hf_model, name = copy.deepcopy(source), str(getattr(source.config, "name_or_path", "") or "live")
        elif isinstance(source, str | Path):
            if not use_bridge and _is_of_transformer_lens(source):
                model = _only_in_transformer_lens(str(source), tokenizer, target_device, target_dtype, processing)
                if strides:
                    fix_strides(model)
                return model
            hf_model, tokenizer, name = read_checkpoint(source, tokenizer, dtype=torch.float32)
        else:
            raise SteerlensError(
                f"cannot load a model from a {type(source).__name__}; "
                'give "demo", a Hugging Face name, a directory, or a model object'
            )
        model = _from_hf(hf_model, tokenizer, name, target_device, target_dtype, use_bridge, processing)
        if strides:
            fix_strides(model)
        return model


def _from_hf(
    hf_model: Any,
    tokenizer: Any,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    use_bridge: bool,
    processing: bool,
) -> HookedModel:
    """A Hugging Face model (owned by us) as a HookedTransformer or bridge."""
    tokenizer = _own(tokenizer, name)
    # Folding in half precision would round twice; convert in float32, cast at the end.
    hf_model = hf_model.to("cpu", torch.float32).eval().requires_grad_(False)
    model: Any
    if use_bridge:
        from transformer_lens.model_bridge import TransformerBridge

        model = TransformerBridge.boot_transformers(name, hf_model=hf_model, tokenizer=tokenizer, device="cpu")
        if processing:
            model.enable_compatibility_mode(disable_warnings=True)
        model.cfg.model_name = name
    else:
        from steerlens.models.conversion import hooked_transformer

        model = hooked_transformer(hf_model, tokenizer, name=name, processing=processing)
    if dtype != torch.float32:
        model = _moved(model, dtype)
    if device.type != "cpu":
        model = _moved(model, device)
    return model.eval()


def _own(tokenizer: Any, name: str) -> Any:
    """A copy of the tokenizer that TransformerLens takes as it is."""
    _check_tokenizer(tokenizer)
    tokenizer = copy.deepcopy(tokenizer)  # TransformerLens fills in its special tokens
    # Without this word TransformerLens reads the tokenizer anew from its name: from the hub if it was made in memory,
    # without what the caller changed if it was not. It puts BOS in front itself where the tokenizer does not.
    tokenizer.init_kwargs |= {"name_or_path": tokenizer.init_kwargs.get("name_or_path", name), "add_bos_token": True}
    return tokenizer


def _check_tokenizer(tokenizer: Any) -> None:
    if not hasattr(tokenizer, "init_kwargs"):
        raise SteerlensError(
            f"tokenizer must be a Hugging Face tokenizer, got {type(tokenizer).__name__}; "
            "make one with AutoTokenizer.from_pretrained(...)"
        )


def _check_spread(
    source: Any, device_map: Any, *, device: Device, bridge: bool | None, processing: bool | None
) -> None:
    """Nothing, if a `device_map` goes with the other arguments; raises SteerlensError where it does not."""
    if not isinstance(source, str | Path):
        raise SteerlensError(
            f"device_map reads a model onto several devices, but a {type(source).__name__} is in memory already; "
            "give its name or directory"
        )
    if isinstance(device_map, str) and device_map not in _DEVICE_MAPS:
        _device(device_map)
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


def _load_spread(source: str | Path, tokenizer: Any, dtype: torch.dtype, device_map: Any) -> HookedModel:
    """A bridge over several devices."""
    from transformer_lens.model_bridge import TransformerBridge

    hf_model, tokenizer, name = read_checkpoint(source, tokenizer, dtype=dtype, device_map=device_map)
    if any(weight.is_meta for weight in hf_model.parameters()):
        raise SteerlensError(
            f"device_map leaves part of {name!r} on the disk, out of which TransformerLens cannot run; "
            "give devices that have room for all of it, or a smaller dtype"
        )
    hf_model = hf_model.eval().requires_grad_(False)
    tokenizer = _own(tokenizer, name)
    try:
        model = TransformerBridge.boot_transformers(name, hf_model=hf_model, tokenizer=tokenizer, dtype=dtype)
    except ValueError as error:  # as for parts on the CPU beside others on a GPU
        raise SteerlensError(f"TransformerLens does not take this device_map: {first_line(error)}") from None
    model.cfg.model_name = name
    return model.eval()


def _moved(model: Any, to: torch.dtype | torch.device) -> Any:
    """The model on another device or in another dtype, all of it."""
    # Rotary frequencies stay in float32 whatever the weights are, as in Hugging Face's own loading: in bfloat16 the
    # angle at position 1,000 would be off by a radian.
    frequencies = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if name.endswith("inv_freq") and isinstance(to, torch.dtype)
    ]
    model = model.to(to)
    for module, name, buffer in frequencies:
        module._buffers[name] = buffer
    for module in model.modules():
        # A bridge's gated MLP keeps its processed weights as plain tensors, which Module.to() does not see.
        for name, value in vars(module).items():
            if name.startswith("_processed_") and isinstance(value, torch.Tensor):
                setattr(module, name, value.to(to))
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


def _device(device: Device) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise SteerlensError(f"no device {device!r}; use 'auto', 'cuda', 'cuda:1', 'mps' or 'cpu'") from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(chosen.type, False):
        raise SteerlensError(f"device {str(chosen)!r} is not available on this machine; use device='auto' or 'cpu'")
    return chosen


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in _DTYPES.values():
        raise SteerlensError(f"dtype {dtype!r} is not supported; use one of {', '.join(_DTYPES)}")
    return chosen  # type: ignore[return-value]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TransformerLens' greetings and deprecation notes, which tell a steerlens user nothing to act on."""
    from transformers.utils import logging as hf_logging

    logger = logging.getLogger()
    level, bars = logger.level, hf_logging.is_progress_bar_enabled()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        hf_logging.disable_progress_bar()
        try:
            yield
        finally:
            logger.setLevel(level)
            if bars:
                hf_logging.enable_progress_bar()
