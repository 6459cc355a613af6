"""Vectors as other tools have them: one row for a block's output, at every position. What does not fit is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import listed, shown
from steerlens.errors import SteerlensError
from steerlens.steering.conditions import Injection
from steerlens.steering.vectors import SteeringVector

Vectors = SteeringVector | Sequence[SteeringVector]
"""One vector, or several that act together."""


def listed_vectors(vectors: Vectors) -> list[SteeringVector]:
    """The vectors given, at least one, all of one model.

    Raises:
        SteerlensError: anything else.
    """
    alone = isinstance(vectors, SteeringVector | Injection)
    given: list[Any] = [vectors] if alone else listed("vectors", vectors, of="steering vectors")
    if not given:
        raise SteerlensError("there is no vector to save; give at least one")
    for vector in given:
        if isinstance(vector, Injection):
            named = repr(vector.title)[:60]
            if vector.kind == "add":
                raise SteerlensError(f"expected a SteeringVector, got the injection {named}; give its vector")
            raise SteerlensError(f"this format holds vectors that are added; what {named} adds depends on activations")
        if not isinstance(vector, SteeringVector):
            raise SteerlensError(f"expected a SteeringVector, got {shown(vector)}")
        if (difference := vector.model.difference(given[0].model)) is not None:
            raise SteerlensError(f"the vectors belong to two models: {difference}")
    return given


def block_before(vector: SteeringVector, tool: str, *, first: int = 0) -> int:
    """The block at whose output the vector is added.

    Args:
        tool: names the format in errors.
        first: the first block that the format knows.

    Raises:
        SteerlensError: the vector goes to another place, or before the output of that first block.
    """
    if vector.site not in ("resid_pre", "resid_post"):
        raise SteerlensError(f"{tool} goes to the residual stream between blocks, not to {vector.site}")
    block = vector.layer if vector.site == "resid_post" else vector.layer - 1
    if block < first:
        least = first + (vector.site == "resid_pre")
        raise SteerlensError(f"{tool} has none for {vector.site} of layer {vector.layer}; use layer {least} or more")
    return block


def require_everywhere(vector: SteeringVector, tool: str) -> None:
    """Raise SteerlensError unless the vector is one row for every position."""
    if vector.n_positions != 1 or vector.placement != "all":
        raise SteerlensError(
            f"{tool} is added at every position, but {vector.label!r:.60} spans {vector.n_positions} "
            f"and is placed at {vector.placement!r}; give a one-position vector, as vector.at(i).on('all')"
        )


def block_outputs(vectors: Vectors, tool: str, *, first: int = 0) -> dict[int, Float[Tensor, " d_model"]]:
    """By block, what the vectors together add at every position of its output, on the CPU; blocks in order.

    Raises:
        SteerlensError: a vector that is not added everywhere between blocks, vectors of two models, none.
    """
    found: dict[int, Tensor] = {}
    for vector in listed_vectors(vectors):
        require_everywhere(vector, tool)
        block, values = block_before(vector, tool, first=first), vector.values[0].cpu()
        found[block] = found.get(block, torch.zeros_like(values)) + values
    return dict(sorted(found.items()))
