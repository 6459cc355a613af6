"""The vectors that a sweep over layers tries: those of a pair at many layers, or vectors given by the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from steerlens.arguments import layer_numbers, listed, shown
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.conditions import Condition, Injection, as_condition, check_conditions
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.actadd import actadd
from steerlens.steering.extraction.mean_difference import mean_difference
from steerlens.steering.gates import Gate
from steerlens.steering.pairs import PromptPair
from steerlens.steering.placement import Placement
from steerlens.steering.vectors import SteeringVector, check_vector

Steerable = (
    PromptPair
    | Sequence[PromptPair]
    | ContrastSet
    | SteeringVector
    | Mapping[int, SteeringVector]
    | Sequence[SteeringVector]
)
"""What a run over layers may steer with: a contrast, from which it makes vectors, or vectors."""


def is_pairs(what: object) -> bool:
    """Whether this is a list of PromptPairs."""
    return isinstance(what, list | tuple) and bool(what) and all(isinstance(one, PromptPair) for one in what)


Steered = SteeringVector | Injection | Condition
Swept = Steerable | Steered | Sequence[Steered]
"""What a sweep tries: the vectors of a contrast, or vectors and conditions that the caller gives."""


def swept_conditions(
    model: HookedModel,
    what: Swept,
    layers: Sequence[int] | Literal["all"],
    *,
    placement: Placement | None = None,
    gate: Gate | None = None,
) -> list[Condition]:
    """A condition for each vector of a pair at the layers (or of the given ones), and the given conditions.

    Args:
        placement: of vectors that come without an injection.
        gate: the prompts in which all of them act.

    Raises:
        SteerlensError: see `layer_vectors`; a condition without vectors.
    """
    given = [what] if isinstance(what, Injection | Condition) else what
    if isinstance(given, Sequence) and any(isinstance(one, Injection | Condition) for one in given):
        asked = layer_numbers(layers, int(model.cfg.n_layers))
        conditions = [as_condition(one, placement=placement) for one in given]  # type: ignore[arg-type]
        check_conditions(model, conditions)
        if not all(one.injections for one in conditions):
            raise SteerlensError("a sweep has its own unsteered condition; give only conditions with vectors")
        conditions = [one for one in conditions if {part.vector.layer for part in one.injections} <= set(asked)]
        if not conditions:
            raise SteerlensError(f"none of the conditions acts on the layers {shown(asked)} alone")
    else:
        vectors = layer_vectors(model, given, layers)  # type: ignore[arg-type]
        conditions = [as_condition(vector, placement=placement) for vector in vectors]
    return conditions if gate is None else [one.under(gate) for one in conditions]


def layer_vectors(
    model: HookedModel,
    what: Steerable,
    layers: Sequence[int] | Literal["all"],
) -> list[SteeringVector]:
    """The vectors of a contrast at each of the layers, or those of the given vectors that belong to one of them.

    A pair, or several, is taken by `actadd`, a ContrastSet by `mean_difference` at the last token of each text.

    Raises:
        SteerlensError: neither a contrast nor vectors, a vector from another model, a layer out of range, no vector for
            the layers.
    """
    if isinstance(what, PromptPair) or is_pairs(what):
        return list(actadd(model, what, layers=layers).values())  # type: ignore[arg-type]
    if isinstance(what, ContrastSet):
        return list(mean_difference(model, what, layers=layers).values())
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
