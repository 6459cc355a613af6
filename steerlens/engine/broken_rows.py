"""Rows of logits without a distribution: those that hold NaN or `+inf`, or nothing but `-inf`.

(A single `-inf` is fine: it means "never".) Drawing from a broken row raises an error, on the CPU at once; elsewhere
that would need a synchronisation, so the row's token is `NO_TOKEN` instead. A job of completions marks such rows and
goes on with the others (`next_tokens_where_any`, `warn_of_lost`). Measuring one gives NaN, never a number:
`Gate` checks every pass that yields logits. The largest logit is enough to tell: NaN and `+inf` win any maximum, and
`-inf` wins only if there is nothing else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from steerlens.errors import SteerlensError

NO_TOKEN = -1
"""The "token" of a row without a distribution, where raising an error would need a synchronisation."""


_INSTEAD = "use a smaller coefficient, or load the model in float32"
_UNSTEERED = (
    "the unsteered model's own logits hold NaN or infinity; load it with dtype='float32', or look at its weights"
)


class BrokenRow(SteerlensError):
    """A row has no distribution to draw from."""


class Gate:
    """Makes broken rows NaN throughout, so that nothing finite can be computed from them, and warns once.

    Args:
        leaves: how many distinct conditions the job has.
        unsteered: which of them is the unsteered model, if any.
    """

    def __init__(self, leaves: int, *, unsteered: int | None) -> None:
        self._leaves, self._unsteered = leaves, unsteered
        self._broken: Tensor | None = None

    def passed(self, logits: Float[Tensor, "cells d_vocab"], leaf: Int[Tensor, " cells"]) -> Tensor:
        """The logits, all NaN in broken rows; `leaf` is the condition of each row. Does not wait for the device."""
        broken = ~logits.amax(-1).isfinite()
        if self._broken is None:
            self._broken = torch.zeros(self._leaves, dtype=torch.long, device=logits.device)
        self._broken.index_add_(0, leaf, broken.long())
        if logits.device.type == "cpu" and not bool(broken.any()):
            return logits
        return logits.masked_fill(broken[:, None], math.nan)

    def report(self, leaf_of: Sequence[int]) -> None:
        """A warning that names the conditions with broken rows (by their number in the job), if there are any.

        Raises:
            SteerlensError: the unsteered model is among them, so there is nothing to compare with.
        """
        if self._broken is None:
            return
        leaves = set(self._broken.nonzero()[:, 0].tolist())
        if self._unsteered in leaves:
            raise SteerlensError(_UNSTEERED)
        if leaves:
            numbers = [number for number, leaf in enumerate(leaf_of) if leaf in leaves]
            several = f"{', '.join(map(str, numbers[:8]))}{', …' if len(numbers) > 8 else ''}"
            warnings.warn(
                f"steering overflows the model under condition {several} (of {len(leaf_of)}, from 0): its numbers are "
                f"NaN; {_INSTEAD}",
                RuntimeWarning,
                stacklevel=3,
            )


def refuse_unsteered(tokens: Int64[Tensor, "sample new"], *, steered: bool) -> None:
    """Raise if the unsteered model itself had no token to draw: there is nothing to compare with."""
    if not steered and bool((tokens == NO_TOKEN).any()):
        raise SteerlensError(_UNSTEERED)


def warn_of_lost(lost: Sequence[str]) -> None:
    """A warning that names the conditions with completions that are none, if there are any."""
    if lost:
        several = f"{', '.join(lost[:8])}{', …' if len(lost) > 8 else ''}"
        warnings.warn(
            f"steering overflows the model under {several}: completions without text, whose measures are NaN; "
            f"{_INSTEAD}",
            RuntimeWarning,
            stacklevel=3,
        )


def settled(tokens: Int64[Tensor, "batch"], largest: Float[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
    """The tokens, with `NO_TOKEN` (on the CPU: an error) for rows without a distribution."""
    if tokens.device.type == "cpu":
        refuse_broken(largest)
        return tokens
    return torch.where(largest.isfinite(), tokens, NO_TOKEN)


def refuse_broken(largest: Float[Tensor, "batch"], *, first_row: int = 0) -> None:
    """Raise if a row has no distribution; first_row is where the first of these stands in the whole batch."""
    for row, value in enumerate(largest.tolist(), first_row):
        if not math.isfinite(value):
            raise BrokenRow(
                f"row {row}: the largest logit (after temperature and penalty) is {value}; needs a finite one: weaken "
                "the steering, raise the temperature, or compute in float32"
            )
