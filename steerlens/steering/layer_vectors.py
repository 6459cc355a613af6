"""The vectors that a sweep over layers tries: those of a pair at many layers, or vectors given by the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from steerlens.arguments import layer_numbers, listed, shown
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.extraction.actadd import actadd
from steerlens.steering.pairs import PromptPair
from steerlens.steering.vectors import SteeringVector, check_vector


def layer_vectors(
    model: HookedModel,
    what: PromptPair | SteeringVector | Mapping[int, SteeringVector] | Sequence[SteeringVector],
    layers: Sequence[int] | Literal["all"],
) -> list[SteeringVector]:
    """The vectors of a pair at each of the layers, or those of the given vectors that belong to one of them.

    Raises:
        SteerlensError: neither a pair nor vectors, a vector from another model, a layer out of range, no vector for
            the layers.
    """
    if isinstance(what, PromptPair):
        return list(actadd(model, what, layers=layers).values())
    asked = layer_numbers(layers, int(model.cfg.n_layers))
    if isinstance(what, SteeringVector):
        vectors = [what]
    elif isinstance(what, Mapping):
        vectors = list(what.values())
    elif isinstance(what, str) or what is None:
        vectors = []
    else:
        vectors = listed("what to steer with", what, of="steering vectors")
    if not vectors or not all(isinstance(vector, SteeringVector) for vector in vectors):
        raise SteerlensError(f"give a PromptPair or at least one SteeringVector to steer with, got {shown(what)}")
    for vector in vectors:
        check_vector(model, vector)
    chosen = [vector for vector in vectors if vector.layer in asked]
    if not chosen:
        raise SteerlensError(
            f"none of the vectors is of the layers {shown(asked)}; theirs are {sorted({v.layer for v in vectors})}"
        )
    return chosen
