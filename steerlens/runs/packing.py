"""`pack` and `unpack`: a model and its job as bytes, tensors kept separate, for processes that share memory."""

from __future__ import annotations

import importlib
import io
import pickle
import sys
import warnings
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from steerlens.errors import SteerlensError


def pack(value: Any) -> tuple[bytes, list[Any]]:
    """A value as bytes and, separately, the bytes of its tensors (NumPy arrays, which Ray shares instead of copying).

    Tensors come from any device. The order of their axes in memory is kept: matrix products round according to it.
    """
    from ray import cloudpickle

    numbers: dict[int, int] = {}
    kept: list[Tensor] = []  # an id stays taken as long as its tensor lives
    arrays: list[Any] = []

    class Packer(cloudpickle.CloudPickler):
        def persistent_id(self, one: Any) -> Any:
            if not isinstance(one, Tensor) or one.is_meta or one.layout != torch.strided or one.numel() == 0:
                return None
            if id(one) not in numbers:
                numbers[id(one)] = len(arrays)
                kept.append(one)
                order = sorted(range(one.ndim), key=one.stride, reverse=True)
                dense = one.detach().permute(order).contiguous().cpu()
                arrays.append(dense.reshape(-1).view(torch.uint8).numpy())
            order = sorted(range(one.ndim), key=one.stride, reverse=True)
            shape = [one.shape[axis] for axis in order]
            parameter = isinstance(one, torch.nn.Parameter)
            return numbers[id(one)], one.dtype, shape, order, one.device.type != "cpu", parameter, one.requires_grad

        def reducer_override(self, one: Any) -> Any:
            # transformers leaves hooks on a model that read a context variable of their module: it is sent by name.
            if isinstance(one, ContextVar) or type(one).__name__ == "CompileableContextVar":
                return _named, _name_of(one)
            return super().reducer_override(one)

    stream = io.BytesIO()
    try:
        Packer(stream).dump(value)
    except (TypeError, AttributeError, ValueError, pickle.PicklingError, RecursionError) as error:
        raise SteerlensError(
            f"the model cannot be sent to Ray workers ({first_line(error)}); load it again, or use engine='local'"
        ) from error
    return stream.getvalue(), arrays


def unpack(packed: tuple[bytes, list[Any]], *, device: str) -> Any:
    """The original value; tensors that were not on the CPU go to `device`."""
    data, arrays = packed
    made: dict[int, Tensor] = {}

    class Unpacker(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Tensor:
            number, dtype, shape, order, moved, parameter, requires_grad = pid
            if number not in made:
                with warnings.catch_warnings():
                    # The arrays are read-only. Nothing writes to parameters; everything else is copied.
                    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                    flat = torch.from_numpy(arrays[number])
                flat = flat.to(device) if moved else flat if parameter else flat.clone()
                tensor = flat.view(dtype).view(shape).permute([order.index(axis) for axis in range(len(order))])
                made[number] = torch.nn.Parameter(tensor, requires_grad) if parameter else tensor
            return made[number]

    return Unpacker(io.BytesIO(data)).load()


def _name_of(one: object) -> tuple[str, str]:
    """The module in which something can be found, and its name there."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is one and getattr(module, "__name__", None):
                return module.__name__, name
    raise pickle.PicklingError(f"{one!r} belongs to no module")


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def first_line(error: BaseException) -> str:
    """A foreign error's message, short enough for one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".;:")
