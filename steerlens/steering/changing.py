"""Changing activations at many places in a batch, in the same order for any number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.steering.operations import Kind, Table, change


@dataclass(frozen=True, eq=False)
class Round:
    """Changes made at once, none at the same place.

    Attributes:
        kind: the kind of all of them.
        places: row, position, and entry of a table.
        strengths: of each change; None: 1.
    """

    kind: Kind
    places: Int[Tensor, "3 some"]
    strengths: Float[Tensor, " some"] | None = None

    def to(self, device: torch.device | str) -> Round:
        """The same with its indices on `device`."""
        strengths = None if self.strengths is None else self.strengths.to(device)
        return Round(self.kind, self.places.to(device), strengths)


@dataclass(frozen=True, eq=False)
class Changes:
    """Changes of one kind: the row, position and table entry of each, and its strength (None: 1)."""

    kind: Kind
    places: Int[Tensor, "3 some"]
    strengths: Float[Tensor, " some"] | None = None


def in_rounds(changes: Sequence[Changes]) -> list[Round]:
    """The places in rounds, in the order given: the second change at a place comes in the second round, and so on.

    If all were made at once, the order of a sum would be left to chance (on a CPU, threads race), and the same seed
    would not give the same logits.
    """
    kinds = list(dict.fromkeys(one.kind for one in changes))
    places = torch.cat([one.places for one in changes], dim=1) if changes else torch.zeros(3, 0, dtype=torch.long)
    if places.shape[1] == 0:
        return []
    row, column, _ = places
    place = row * (column.max() + 1) + column
    order = place.argsort(stable=True)
    sorted_place = place[order]
    place_round = torch.empty_like(place)
    place_round[order] = torch.arange(len(place), device=place.device) - torch.searchsorted(sorted_place, sorted_place)
    numbers = range(int(place_round.max()) + 1)
    strengths: Tensor | None = None
    if any(one.strengths is not None for one in changes):
        given = [torch.ones(one.places.shape[1]) if one.strengths is None else one.strengths for one in changes]
        strengths = torch.cat(given)

    def chosen(kind: Kind, which: Tensor) -> Round:
        return Round(kind, places[:, which], None if strengths is None else strengths[which])

    if len(kinds) == 1:
        return [chosen(kinds[0], place_round == number) for number in numbers]
    of_kind = torch.cat([torch.full((one.places.shape[1],), kinds.index(one.kind)) for one in changes])
    found = [chosen(k, (place_round == number) & (of_kind == i)) for number in numbers for i, k in enumerate(kinds)]
    return [one for one in found if one.places.shape[1]]


def change_(x: Float[Tensor, "batch pos width"], rounds: Sequence[Round], table: Table) -> None:
    """Change activations by entries of the table, in place."""
    for place_round in rounds:
        row, column, entry = place_round.places
        before = x[row, column]
        if place_round.kind == "add" and place_round.strengths is None:
            by = table.values[entry]
        else:
            by = change(before, table.at(entry), place_round.kind, strength=place_round.strengths)
        x.index_put_((row, column), (before + by).to(x.dtype))
