"""Pieces of a model: its blocks, and what stands before and after them, so that one at a time is held in float32.

A checkpoint in half precision is read as it is. What must be exact (the original's answer to the probe, the folding of
weights, the converted model's answer) is computed in float32, for which each piece is made ready when it is called and
emptied again when another one is called. So the numbers are those of a model that is in float32 as a whole, and memory
holds the weights once, and one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.errors import SteerlensError

# Where modules keep what is none of our business here.
_CONTAINERS = {"_parameters", "_buffers", "_modules"}


@dataclass(frozen=True)
class Piece:
    """Part of a model whose weights are needed together.

    Attributes:
        roots: the modules that it is made of; theirs are all modules below them.
        fill: puts weights in float32 there. Whoever calls it puts back what was there before.
        keep: puts the weights there that the model shall have from now on, in a dtype.
    """

    roots: tuple[nn.Module, ...]
    fill: Callable[[], None]
    keep: Callable[[torch.dtype], None]

    def modules(self) -> list[nn.Module]:
        """Every module of the piece, once."""
        return list({id(module): module for root in self.roots for module in root.modules()}.values())


@contextmanager
def ready_when_called(pieces: Sequence[Piece], *models: nn.Module) -> Iterator[None]:
    """The models compute in float32 while the block lasts, each piece filled when one of its modules is called.

    What belongs to none of the pieces, or to several, is in float32 all the time: there are no matrices among it.
    """
    owners: dict[int, Piece | None] = {}
    for piece in pieces:
        for module in piece.modules():
            owners[id(module)] = None if id(module) in owners else piece
    every = {id(module): module for model in models for module in model.modules()}
    loose = [module for name, module in every.items() if owners.get(name) is None]
    now: list[tuple[Piece, list[_State]]] = []

    def before(module: nn.Module, args: Any) -> None:
        piece = owners.get(id(module))
        if piece is not None and not (now and now[0][0] is piece):
            leave()
            now.append((piece, [_State.of(one) for one in piece.modules()]))
            piece.fill()

    def leave() -> None:
        while now:
            for state in now.pop()[1]:
                state.put_back()

    states = [_State.of(module) for module in loose]
    # For all modules there are: hooks on those of this model would show, and change which way of decoding is taken.
    handle = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        make_float32(loose)
        yield
    finally:
        handle.remove()
        leave()
        for state in states:
            state.put_back()


def plain_pieces(model: nn.Module, n_layers: int) -> list[Piece]:
    """The pieces of a model whose weights are right as they are, but for their dtype.

    Raises:
        SteerlensError: no list of that many blocks.
    """
    holder, name = find_blocks(model, n_layers)
    blocks = getattr(holder, name)
    return [plain_piece(root) for root in [*around(model, blocks), *blocks]]


def plain_piece(root: nn.Module) -> Piece:
    """A piece whose weights are right as they are, but for their dtype."""
    return Piece((root,), lambda: make_float32(root.modules()), lambda dtype: cast_in_place([root], dtype))


def find_blocks(model: nn.Module, n_layers: int) -> tuple[nn.Module, str]:
    """Where the blocks of a model are: the module that has the list of them, and its name there.

    Raises:
        SteerlensError: no list of that many blocks.
    """
    found = [
        (sum(weight.numel() for weight in child.parameters()), holder, name)
        for holder in model.modules()
        for name, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == n_layers
    ]
    if not found:
        raise SteerlensError(f"{type(model).__name__} has no list of {n_layers} blocks")
    _, holder, name = max(found, key=lambda one: one[0])
    return holder, name


def around(model: nn.Module, blocks: nn.Module) -> list[nn.Module]:
    """The largest modules with weights that the blocks are no part of."""
    found = []
    for child in model.children():
        if child is blocks:
            continue
        if any(module is blocks for module in child.modules()):
            found += around(child, blocks)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return list({id(one): one for one in found}.values())


def make_float32(modules: Iterable[nn.Module]) -> None:
    """Nothing is returned: what the modules hold is replaced by copies in float32; what is tied stays tied."""
    known: dict[int, Tensor] = {}

    def copied(value: Tensor) -> Tensor:
        if id(value) not in known:
            new = value.detach().to(torch.float32, copy=True)
            known[id(value)] = nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
        return known[id(value)]

    _replace(modules, copied)


def make_meta(modules: Iterable[nn.Module]) -> None:
    """Nothing is returned: what the modules hold is replaced by tensors that have shapes and no numbers."""

    def emptied(value: Tensor) -> Tensor:
        new = torch.empty_like(value, device="meta")
        return nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new

    _replace(modules, emptied)


@torch.no_grad()
def cast_in_place(roots: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Nothing is returned: weights are in another dtype, those that share memory still do, and buffers stay."""
    known: dict[tuple[Any, ...], Tensor] = {}
    for root in roots:
        for module in root.modules():
            for value in [*module._parameters.values(), *_plain_tensors(module).values()]:
                if value is not None and value.is_floating_point() and value.dtype != dtype:
                    place = (value.data_ptr(), value.dtype, value.shape, value.stride())
                    value.data = known.setdefault(place, value.data.to(dtype))


def buffers_in_float32(model: nn.Module) -> None:
    """Nothing is returned: buffers that are in half precision are in float32."""
    for module in model.modules():
        for name, value in module._buffers.items():
            if value is not None and value.dtype in (torch.bfloat16, torch.float16):
                module._buffers[name] = value.float()


@contextmanager
def put_back_after(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Whatever the modules hold, they hold again after the block."""
    states = [_State.of(module) for module in modules]
    try:
        yield
    finally:
        for state in states:
            state.put_back()


def _replace(modules: Iterable[nn.Module], change: Callable[[Tensor], Tensor]) -> None:
    for module in list(modules):
        for store in (module._parameters, module._buffers):
            for name, value in store.items():
                if value is not None and value.is_floating_point():
                    store[name] = change(value)  # type: ignore[assignment]
        for name, value in _plain_tensors(module).items():
            vars(module)[name] = change(value)


def _plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that PyTorch does not know of: a bridge keeps some processed weights so."""
    return {
        name: value for name, value in vars(module).items() if isinstance(value, Tensor) and value.is_floating_point()
    }


@dataclass(frozen=True)
class _State:
    """What a module holds."""

    module: nn.Module
    parameters: dict[str, Any]
    buffers: dict[str, Any]
    rest: dict[str, Any]

    @staticmethod
    def of(module: nn.Module) -> _State:
        return _State(module, dict(module._parameters), dict(module._buffers), _rest(module))

    def put_back(self) -> None:
        for store, before in ((self.module._parameters, self.parameters), (self.module._buffers, self.buffers)):
            store.clear()
            store.update(before)
        for name in _rest(self.module).keys() - self.rest.keys():
            del vars(self.module)[name]
        vars(self.module).update(self.rest)


def _rest(module: nn.Module) -> dict[str, Any]:
    """Plain tensors, and the marks that say that they are used."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _CONTAINERS and (isinstance(value, Tensor) or name.startswith(("_processed", "_use_processed")))
    }
