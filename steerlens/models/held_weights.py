"""`weights_held`: what is known of a model's weights, read once for many calls that do not change them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from steerlens.models.protocol import HookedModel
from steerlens.models.weight_sketch import weights_key

T = TypeVar("T")

# Where a model keeps what was read of its weights while they were held, with the key of what they were then.
_NOTE = "_steerlens_held"


class _Holding(threading.local):
    """By `id` of the models that this thread holds: what is known of their weights."""

    def __init__(self) -> None:
        self.known: dict[int, dict[str, Any]] = {}


_HOLDING = _Holding()


@contextmanager
def weights_held(model: HookedModel) -> Iterator[tuple[Any, ...]]:
    """In the block, this thread takes the model's weights for unchanged: fingerprint and stamp are not read again.

    They are read again in a later block if the weights are others by then, as far as PyTorch's counters of changes in
    place and one element of each weight tell (see `weights_key`). So this is for one who keeps nothing: a front end
    that recomputes at every move of a slider. What is stored reads every bit.

    Yields what tells these weights from others.
    """
    noted: tuple[tuple[Any, ...], dict[str, Any]] | None = vars(model).get(_NOTE)
    if noted is not None and id(model) in _HOLDING.known:  # in another such block already
        yield noted[0]
        return
    key = weights_key(model)
    known = noted[1] if noted is not None and noted[0] == key else {}
    vars(model)[_NOTE] = (key, known)
    _HOLDING.known[id(model)] = known
    try:
        yield key
    finally:
        del _HOLDING.known[id(model)]


def once_if_held(model: HookedModel, what: str, read: Callable[[], T]) -> T:
    """What `read` gives, or gave before if the model's weights are held."""
    known = _HOLDING.known.get(id(model))
    if known is None:
        return read()
    if what not in known:
        known[what] = read()
    value: T = known[what]
    return value
