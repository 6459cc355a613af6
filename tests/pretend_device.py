"""A pretended accelerator: tensors that say they live on `pretend:0` or `pretend:1` and are computed on the CPU.

It is as strict as CUDA (tensors of different devices do not meet; nothing turns into NumPy without `.cpu()`) and it
writes down whatever makes a host wait for a real device: copies in either direction, numbers read into Python, and
operations whose result has a size that only the device knows. So a machine without an accelerator can show that a
computation stays on its device, or goes from one to another where it should, and how often the host has to wait.
It cannot show speed, nor what CUDA's kernels round differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME, COUNT = "pretend", 2

# The size of the result is known to the device alone.
_SIZE_UNKNOWN = {
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.unique_dim.default,
    torch.ops.aten.unique_consecutive.default,
    torch.ops.aten.bincount.default,
}
_READ = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default, torch.ops.aten.is_nonzero.default}
_INDEXES = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}

_waits: list[Counter[str]] = []


class _Module:
    """What PyTorch asks of a device's module. Outside `pretending` there is no such device."""

    inside = 0

    def is_available(self) -> bool:
        return self.inside > 0

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return COUNT if self.inside else 0

    def manual_seed_all(self, seed: int) -> None:
        pass


class PretendTensor(Tensor):
    """A CPU tensor under another device's name."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> PretendTensor:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=device,
            requires_grad=held.requires_grad,
        )

    def __init__(self, held: Tensor, device: torch.device) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.held!r} on {self.device}"


class _Factories(TorchDispatchMode):
    """Makes tensors on the device where no argument is on one yet."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class _FromPython(TorchFunctionMode):
    """What goes between Python and the device past a dispatch mode."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is Tensor.tolist and isinstance(args[0], PretendTensor):
            _note("read by tolist")
            return args[0].held.tolist()
        if function is Tensor.__contains__ and isinstance(args[0], PretendTensor):
            return bool((args[0] == args[1]).any())
        if function is Tensor.__getitem__ and isinstance(args[0], PretendTensor):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(one) if isinstance(one, list) else one for one in index))
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on the CPU, with its result on the device that a real one would have it on."""
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    places = {leaf.device for leaf in tensors if isinstance(leaf, PretendTensor)}
    asked = kwargs.get("device")
    target = _full(torch.device(asked)) if asked is not None else None
    if not places and (target is None or target.type != NAME):
        return operation(*args, **kwargs)
    if operation is torch.ops.aten.copy_.default:
        return _copy(*args)
    _check_together(operation, args, tensors, places)
    (source,) = places or {torch.device("cpu")}
    target = source if target is None else target
    if operation in _READ:
        _note(f"read by {operation}")
    elif operation in _SIZE_UNKNOWN or _has_mask(operation, args):
        _note(f"size of {operation}")
    elif target != source and tensors:
        _note(f"copy {source.type} to {target.type}")
    inner = dict(kwargs)
    if asked is not None:
        inner["device"] = torch.device("cpu")
    result = operation(*tree_map(_opened, args), **tree_map(_opened, inner))
    if target != source and tensors:
        # A copy to another device shares no memory, though the CPU may see nothing to copy.
        result = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, result)
    if target.type == "cpu":
        return result
    wrapped = tree_map(lambda leaf: PretendTensor(leaf, target) if isinstance(leaf, Tensor) else leaf, result)
    if not tensors:
        return wrapped
    return return_and_correct_aliasing(operation, args, kwargs, wrapped)


def _copy(into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if into.device != source.device and source.numel():
        _note(f"copy {source.device.type} to {into.device.type}")
    _opened(into).copy_(_opened(source))
    return into


def _check_together(operation: Any, args: Any, tensors: list[Tensor], places: set[torch.device]) -> None:
    others = [t for t in tensors if not isinstance(t, PretendTensor) and t.ndim > 0]
    if operation in _INDEXES and isinstance(args[0], PretendTensor):  # indices may be on the CPU, and are copied
        indices = [t for t in args[1] if isinstance(t, Tensor) and not isinstance(t, PretendTensor)]
        if indices:
            _note("copy cpu to pretend")
        others = [t for t in others if not any(t is index for index in indices)]
    if others and places:
        places = places | {t.device for t in others}
    if len(places) > 1:
        raise RuntimeError(f"{operation}: expected all tensors on one device, found {sorted(map(str, places))}")


def _has_mask(operation: Any, args: Any) -> bool:
    """Whether an index is a mask: how many elements it picks is to be counted first."""
    if operation not in _INDEXES:
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _opened(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, PretendTensor) else leaf


def _full(device: torch.device) -> torch.device:
    return torch.device(NAME, 0) if device.type == NAME and device.index is None else device


def _note(what: str) -> None:
    for waits in _waits:
        waits[what] += 1


@contextmanager
def pretending() -> Iterator[None]:
    """Inside, `pretend:0` and `pretend:1` are devices."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    module = getattr(torch, NAME)
    module.inside += 1
    try:
        with _Factories(), _FromPython():
            yield
    finally:
        module.inside -= 1


class DefaultDevice(TorchFunctionMode):
    """As after `torch.set_default_device("pretend:0")`, which looks past a dispatch mode."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in _device_constructors() and kwargs.get("device") is None:
            if function in (torch.tensor, torch.as_tensor):
                return function(*args, **kwargs).to(f"{NAME}:0")
            kwargs["device"] = f"{NAME}:0"
        return function(*args, **kwargs)


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """What the host would have waited for inside, and how often."""
    counter: Counter[str] = Counter()
    _waits.append(counter)
    try:
        yield counter
    finally:
        _waits.remove(counter)


def move(module: nn.Module, device: str) -> None:
    """Puts a module's parameters, buffers and other tensors on a pretended device, in place."""
    place = _full(torch.device(device))
    moved: dict[int, Any] = {}

    def on_device(tensor: Tensor) -> Any:  # one tensor stays one, however many modules share it
        if id(tensor) not in moved:
            held = _opened(tensor.detach())
            moved[id(tensor)] = PretendTensor(held, place)
            if isinstance(tensor, nn.Parameter):
                moved[id(tensor)] = nn.Parameter(moved[id(tensor)], requires_grad=tensor.requires_grad)
        return moved[id(tensor)]

    for one in module.modules():
        for table in (one._parameters, one._buffers, vars(one)):
            for name, tensor in table.items():
                if isinstance(tensor, Tensor):
                    table[name] = on_device(tensor)
