"""Rows of logits without a distribution: those that hold NaN or `+inf`, or nothing but `-inf`.

(`-inf` alone is no fault: it means never.) On the CPU such a row is an error; elsewhere an error would need a
synchronisation, and the row's token is `NO_TOKEN` instead. The largest logit tells: NaN and `+inf` win any maximum,
`-inf` only its like.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steerlens.errors import SteerlensError

NO_TOKEN = -1
"""The "token" of a row without a distribution, where raising an error would need a synchronisation."""


def settled(tokens: Int64[Tensor, "batch"], largest: Float[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
    """The tokens, but none (on the CPU: an error) for rows without a distribution."""
    if tokens.device.type == "cpu":
        refuse_broken(largest)
        return tokens
    return torch.where(largest.isfinite(), tokens, NO_TOKEN)


def refuse_broken(largest: Float[Tensor, "batch"], *, first_row: int = 0) -> None:
    """Raise if a row has no distribution; first_row is the place of the first of these in the whole batch."""
    for row, value in enumerate(largest.tolist(), first_row):
        if not math.isfinite(value):
            raise SteerlensError(
                f"row {row}: the largest logit (after temperature and penalty) is {value}; needs a finite one: weaken "
                "the steering, raise the temperature, or compute in float32"
            )
