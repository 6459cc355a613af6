"""Devices and dtypes: what a user may ask for, what "auto" takes, and moving a model there."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from steerlens.errors import SteerlensError

Device = Literal["auto", "cuda", "mps", "cpu"] | str | torch.device
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Parameters from which dtype="auto" takes bfloat16: smaller models are quick enough in float32, which is exact.
LARGE = 100_000_000
# What processors call their instructions for bfloat16 (x86: AVX-512 and AMX; Arm).
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_PROCESSOR = Path("/proc/cpuinfo")


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


def read_dtype(dtype: torch.dtype | str) -> torch.dtype | None:
    """The dtype that was asked for; None for "auto". Raises SteerlensError for any but float32, bfloat16, float16."""
    if isinstance(dtype, str) and dtype == "auto":
        return None
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or chosen not in _DTYPES.values():
        raise SteerlensError(f"dtype {dtype!r} is not supported; use one of {', '.join(_DTYPES)}, or 'auto'")
    return chosen


def auto_dtype(device: torch.device, parameters: int | None) -> tuple[torch.dtype, str | None]:
    """The dtype that "auto" takes for a model of so many parameters, and what to tell the user of it.

    bfloat16 where the device computes in it by itself and the model is large, else float32.

    Args:
        parameters: None for a model too large to be counted on one device.
    """
    if (parameters is not None and parameters < LARGE) or not has_bfloat16(device):
        return torch.float32, None
    size = "a large model" if parameters is None else f"{parameters / 1e6:,.0f} million parameters"
    return torch.bfloat16, (
        f'dtype="auto" took bfloat16 ({size}, and {device.type} computes in it): faster and less exact; '
        'dtype="float32" gives exact figures'
    )


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself; where that cannot be told, no."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _processor_has_bfloat16(_PROCESSOR)


@lru_cache
def _processor_has_bfloat16(description: Path) -> bool:
    try:
        lines = description.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _BFLOAT16_FLAGS.isdisjoint(flags.partition(":")[2].split())


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
    if isinstance(to, torch.dtype):
        # A bridge's own .to(dtype) makes a state dict of the whole model for every weight in it (6 s of 8 for SmolLM2).
        for part in (model, getattr(model, "original_model", None)):
            if part is not None:
                torch.nn.Module.to(part, to)
        model.cfg.dtype = to
    else:
        model = model.to(to)
    for module, name, buffer in frequencies:
        module._buffers[name] = buffer
    for module in model.modules():
        # A bridge's gated MLP keeps its processed weights as plain tensors, which Module.to() does not see.
        for name, value in vars(module).items():
            if name.startswith("_processed_") and isinstance(value, torch.Tensor):
                setattr(module, name, value.to(to))
    return model
