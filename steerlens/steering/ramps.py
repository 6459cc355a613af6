"""Ramps: strengths that change from position to position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import numbers, whole_number
from steerlens.errors import SteerlensError
from steerlens.steering.placement import Placement


@dataclass(frozen=True)
class Ramp:
    """The strength of an injection at each of the positions that it touches: piecewise linear through `points`.

    `Ramp([0, 1])` rises from nothing at the first touched position of the prompt to full strength at the last;
    `Ramp([1, 0], over=20)` at `"generated"` fades over twenty generated tokens; with `over=len(points)` every position
    has a point of its own. Behind the last point the strength stays what it is there. A lone position has the last
    point's.

    What is added (or turned to) is multiplied by the strength, so a vector's coefficient and a ramp multiply. Of
    `"ablate"`, `"clamp"` and `"affine"` the change of the activation is: strength 0.5 goes half of the way.

    Attributes:
        points: strengths at equal distances; one point is the same strength everywhere.
        over: how many positions lie from the first point to the last. None: all touched positions of the prompt, as
            `"all"` needs it (generated tokens then have the last point's strength); `"generated"` and `"from_last"`
            need a number, counted from the first token that they touch.
    """

    points: Sequence[float]
    over: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(numbers("points", self.points)))
        if self.over is not None:
            object.__setattr__(self, "over", whole_number("over", self.over, least=1))

    @property
    def title(self) -> str:
        """The ramp in words: `ramp 0 → 1 over 20`."""
        way = " → ".join(f"{point:g}" for point in self.points[:5]) + (" → …" if len(self.points) > 5 else "")
        return f"ramp {way}{'' if self.over is None else f' over {self.over}'}"


def ramp_strengths(ramp: Ramp, index: Int[Tensor, "*shape"], count: Int[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """The strength at the index-th touched position (from 0) of `count` in the prompt."""
    points = torch.tensor(ramp.points, device=index.device)
    last = (count if ramp.over is None else torch.full_like(count, ramp.over)) - 1
    way = torch.where(last > 0, index.clamp(min=0) / last.clamp(min=1), 1.0).clamp(max=1.0) * (len(points) - 1)
    # Rounding must not keep a position from its own point.
    nearest = way.round()
    way = torch.where((way - nearest).abs() < 1e-4, nearest, way)
    low = way.floor().long()
    share = way - low
    return points[low] * (1 - share) + points[(low + 1).clamp(max=len(points) - 1)] * share


def check_ramp(ramp: object, placement: Placement) -> None:
    """Raise SteerlensError unless it is None, or a ramp that says what a placement needs."""
    if ramp is None:
        return
    if not isinstance(ramp, Ramp):
        raise SteerlensError(f"ramp must be a Ramp, got {type(ramp).__name__}; make one with Ramp([0, 1])")
    if placement in ("generated", "from_last") and ramp.over is None:
        raise SteerlensError(
            f"placement={placement!r} has no end, so its ramp needs one: give over=, the number of tokens"
        )
    if placement == "all" and ramp.over is not None:
        raise SteerlensError(
            "at placement='all' a ramp goes over the prompt; leave out over=, or use 'prompt' and 'generated'"
        )
