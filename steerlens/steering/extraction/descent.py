"""Gradient descent on one vector: exact gradients or two-point estimates, early stopping, the best so far kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.progress import progress_bar

Gradient = Literal["exact", "none"]


@dataclass
class Descent:
    """What a descent found.

    Attributes:
        best: the vector with the smallest checked loss.
        best_step: after how many steps; 0 if no step improved on the start.
        losses: (step, checked loss), from the start on.
        interrupted: whether it was ended by Ctrl-C.
    """

    best: Float[Tensor, " d_model"]
    best_step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    interrupted: bool = False


def descend(
    loss: Callable[[Float[Tensor, "*row d_model"], int], Tensor],
    check: Callable[[Float[Tensor, " d_model"]], float],
    start: Float[Tensor, " d_model"],
    *,
    unit: float,
    steps: int,
    lr: float,
    gradient: Gradient = "exact",
    patience: int = 5,
    check_every: int = 5,
    seed: int = 0,
    enough: float = float("-inf"),
    progress: bool | None = None,
) -> Descent:
    """The vector with the smallest `check` along the way, by Adam on `loss`.

    With `gradient="none"` the gradient is estimated from two losses (MeZO, Malladi et al., arXiv 2305.17333:
    SPSA): (L(v + εz) − L(v − εz)) / 2ε · z with a random z, computed in one pass that holds both.

    Args:
        loss: of one vector [d_model], and of the step's number; with `gradient="none"` of two vectors, one loss each.
        unit: the size of an entry of the residual stream; steps and ε are in this unit.
        patience: how many checks in a row may fail to improve before it stops.
        enough: a loss at which it stops.

    Raises:
        KeyboardInterrupt: before any step improved on the start; later, the best so far is returned with a warning.
    """
    noise = torch.Generator().manual_seed(seed)
    scaled = (start / unit).clone().requires_grad_(gradient == "exact")
    optimiser = torch.optim.Adam([scaled], lr=lr)
    result = Descent(start.clone())
    best, waited = check(start), 0
    result.losses.append((0, best))
    try:
        with progress_bar(steps, unit="step", what="training", progress=progress, leave=False) as bar:
            for step in range(1, steps + 1):
                if gradient == "exact":
                    (scaled.grad,) = torch.autograd.grad(loss(scaled * unit, step), scaled)
                else:
                    scaled.grad = _two_point(loss, scaled, unit, step, noise)
                if not torch.isfinite(scaled.grad).all():
                    raise SteerlensError(f"the gradient of step {step} is NaN or infinite; load the model in float32")
                optimiser.step()
                bar.update()
                if step % check_every and step != steps:
                    continue
                vector = (scaled * unit).detach()
                now = check(vector)
                result.losses.append((step, now))
                bar.set_postfix(loss=f"{now:.4g}")
                if now < best:
                    best, waited, result.best, result.best_step = now, 0, vector.clone(), step
                else:
                    waited += 1
                if waited >= patience or best <= enough:
                    break
    except KeyboardInterrupt:
        if result.best_step == 0:
            raise
        result.interrupted = True
        warnings.warn(f"interrupted; keeping the vector of step {result.best_step}, the best so far", stacklevel=3)
    return result


_EPSILON = 0.01  # in units of the residual stream's entries


@torch.no_grad()
def _two_point(
    loss: Callable[[Tensor, int], Tensor], scaled: Tensor, unit: float, step: int, noise: torch.Generator
) -> Float[Tensor, " d_model"]:
    z = torch.randn(scaled.shape, generator=noise).to(scaled)
    up, down = loss(torch.stack([scaled + _EPSILON * z, scaled - _EPSILON * z]) * unit, step)
    return (up - down) / (2 * _EPSILON) * z
