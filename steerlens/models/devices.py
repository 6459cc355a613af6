"""Devices and dtypes: what a user may ask for, and moving a model there."""

from __future__ import annotations

from typing import Any, Literal

import torch

from steerlens.errors import SteerlensError

Device = Literal["auto", "cuda", "mps", "cpu"] | str | torch.device
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_device(device: Device) -> torch.device:
    """The device that was asked for. Raises SteerlensError where it is not on this machine."""
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if not isinstance(device, str | torch.device):
            raise TypeError
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


def read_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """The dtype that was asked for. Raises SteerlensError for any but float32, bfloat16 and float16."""
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or chosen not in _DTYPES.values():
        raise SteerlensError(f"dtype {dtype!r} is not supported; use one of {', '.join(_DTYPES)}")
    return chosen


def moved(model: Any, to: torch.dtype | torch.device) -> Any:
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
