"""A sketch of all weights: two numbers for each, by which a fine-tune is told from its base, rounding or not.

Each weight is multiplied with fixed random signs and summed up, in proportion to its norm (a random projection, as in
Johnson and Lindenstrauss). A change of relative size δ moves that number by about δ. Rounding to half precision is a
relative change of 1e-3, fine-tuning one of 1e-2 and more, so one sketch serves float32 and half precision; a
fingerprint, which every bit changes, could not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.models.protocol import HookedModel, weights_of

_WIDTH = 1 << 15
# Added to the norm of each element, so that a bias which is zero but for rounding does not count.
_FLOOR = 1e-3
# Float32 on any machine, and where one side is rounded to half precision: the largest difference of one number, and
# the root mean square of all.
_EXACT = (1e-4, 1e-4)
_ROUNDED = (1.2e-2, 3e-3)
# Where a model keeps what is known of its weights: on itself, so that copies of it have it too.
_NOTE = "_steerlens_weights"


@dataclass(frozen=True)
class WeightSketch:
    """What tells one set of weights from another.

    Attributes:
        form: a digest of the names and shapes; sketches of two forms cannot be compared.
        exact: whether all weights are float32.
        values: two numbers for each weight: its projection in proportion to its norm, and the logarithm of its size.
    """

    form: str
    exact: bool
    values: tuple[float, ...]

    def differs(self, other: WeightSketch) -> bool | None:
        """Whether these are other weights, by more than rounding; None if the two cannot be compared."""
        if self.form != other.form or len(self.values) != len(other.values):
            return None
        largest, typical = _EXACT if self.exact and other.exact else _ROUNDED
        gaps = [abs(a - b) for a, b in zip(self.values, other.values, strict=True)]
        if any(math.isnan(gap) for gap in gaps):
            return True
        return max(gaps, default=0.0) > largest or math.hypot(*gaps) > typical * math.sqrt(max(len(gaps), 1))


@torch.no_grad()
def sketch_weights(weights: Iterable[tuple[str, Tensor]]) -> WeightSketch:
    """The sketch of named weights. Reads memory twice: half a second for 10⁹ bytes on a CPU core."""
    named = list(weights)
    values = _projections(weight for _, weight in named)
    if not all(map(math.isfinite, values)):  # −∞ in a bias marks tokens that are none: it counts like a number
        values = _projections(
            weight.detach().float().nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0) for _, weight in named
        )
    form = hashlib.blake2b(repr([(name, list(weight.shape)) for name, weight in named]).encode(), digest_size=8)
    return WeightSketch(
        form=form.hexdigest(),
        exact=all(weight.dtype == torch.float32 for _, weight in named),
        values=tuple(round(x, 6) for x in values),
    )


@dataclass(frozen=True)
class _Note:
    """What is known of a model's weights: as they were when its key was taken.

    Attributes:
        live: sketch of the weights that it runs with; None until someone asks.
        origin: sketch of the Hugging Face model that it was made from, as long as its weights are what they were.
    """

    key: tuple[Any, ...]
    live: WeightSketch | None
    origin: WeightSketch | None


def note_origin(model: HookedModel, origin: WeightSketch | None) -> None:
    """Nothing is returned: the model knows the sketch of the Hugging Face model that it was made from."""
    vars(model)[_NOTE] = _Note(weights_key(model), None, origin)


def live_and_origin(model: HookedModel) -> tuple[WeightSketch, WeightSketch | None]:
    """The sketch of the weights that `model` runs with, and of the model that it was made from.

    The first is the same only for one class and processing of a model, the second for all of them; it is None where it
    is not known, and when weights were changed after loading. Both are kept on the model with a key, of PyTorch's
    counters of changes in place and one element of every weight: read anew whenever that key is another.
    """
    key, note = weights_key(model), vars(model).get(_NOTE)
    if note is not None and note.key == key and note.live is not None:
        return note.live, note.origin
    live = sketch_weights(weights_of(model))
    # Moved, cast or copied weights have another key but are the same: compare their sketches, if both are known.
    origin = note.origin if note and (note.key == key or (note.live and note.live.differs(live) is False)) else None
    vars(model)[_NOTE] = _Note(key, live, origin)
    return live, origin


def weights_key(model: HookedModel) -> tuple[Any, ...]:
    """What changes when weights are changed: PyTorch's counters of changes in place, one element of every weight."""
    weights = [weight for _, weight in weights_of(model)]
    versions = tuple(0 if weight.is_inference() else weight._version for weight in weights)
    middles = [weight.detach()[tuple(size // 2 for size in weight.shape)] for weight in weights if weight.numel()]
    return versions, tuple(_on_the_host(middles))


def _projections(weights: Iterable[Tensor]) -> list[float]:
    """The two numbers of each weight."""
    numbers: list[Tensor | float] = []
    for weight in weights:
        # On the host they are read at once: a tensor that stays behind after each copy in float32 would keep the
        # memory of all those copies from being used again.
        pair = _projection(weight)
        numbers += _on_the_host(pair) if weight.device.type == "cpu" else pair
    waiting = iter(_on_the_host([number for number in numbers if isinstance(number, Tensor)]))
    return [next(waiting) if isinstance(number, Tensor) else number for number in numbers]


def _projection(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The two numbers of a weight, each a tensor of no axes on its device."""
    if weight.is_meta or not weight.numel():
        return torch.zeros(()), torch.zeros(())
    flat = weight.detach().reshape(-1)
    if not flat.is_floating_point():
        flat = flat.float()
    whole = len(flat) - len(flat) % _WIDTH
    folded = flat[:whole].view(-1, _WIDTH).sum(0, dtype=torch.float32)
    folded[: len(flat) - whole] += flat[whole:]
    norm = torch.linalg.vector_norm(flat, dtype=torch.float32)
    norm = norm + _FLOOR * math.sqrt(len(flat))
    return (folded * _signs().to(flat.device)).sum() / norm, (norm / math.sqrt(len(flat))).log()


@lru_cache(maxsize=1)
def _signs() -> Float[Tensor, " width"]:
    """Plus and minus ones, the same everywhere: from SHAKE-128, since a generator's stream may change."""
    bits = torch.frombuffer(bytearray(hashlib.shake_128(b"steerlens sketch").digest(_WIDTH)), dtype=torch.uint8)
    return (bits & 1).float() * 2 - 1


def _on_the_host(numbers: Sequence[Tensor]) -> list[float]:
    """The numbers, with one wait for every device that they are on."""
    found = [0.0] * len(numbers)
    for device in {number.device for number in numbers}:
        places = [place for place, number in enumerate(numbers) if number.device == device and not number.is_meta]
        if places:
            values = torch.stack([numbers[place].float() for place in places]).tolist()
            for place, value in zip(places, values, strict=True):
                found[place] = value
    return found
