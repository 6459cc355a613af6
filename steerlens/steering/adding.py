"""Adding many vectors at many places of a batch, in one order whatever the number of threads."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Turn: TypeAlias = Tensor
"""Int [3 some]: row, position, and entry of a table, of all that is added at once; no place comes twice."""


def in_turns(places: Int[Tensor, "3 added"]) -> list[Turn]:
    """The places in turns: whatever comes second at a place is added in the second turn, and so on.

    Were it added at once, the order of the sum would be left to chance (on a CPU threads race for it), and the same
    seed would not give the same logits.

    Args:
        places: row, position and entry of what is to be added.
    """
    if places.shape[1] == 0:
        return []
    row, column, _ = places
    place = row * (column.max() + 1) + column
    order = place.argsort(stable=True)
    sorted_place = place[order]
    turn = torch.empty_like(place)
    turn[order] = torch.arange(len(place), device=place.device) - torch.searchsorted(sorted_place, sorted_place)
    return [places[:, turn == number] for number in range(int(turn.max()) + 1)]


def add_(resid: Float[Tensor, "batch pos d_model"], turns: list[Turn], table: Float[Tensor, "entries d_model"]) -> None:
    """Adds entries of the table to the residual stream, in place."""
    for row, column, entry in turns:
        resid.index_put_((row, column), resid[row, column] + table[entry])
