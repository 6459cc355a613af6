"""`Plan`: the conditions of a sweep, each with its role, and what they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steerlens.engine import Sampling
from steerlens.models import HookedModel
from steerlens.runs.controls import ControlPlan, plan_controls
from steerlens.steering import Condition, Placement, SteeringVector
from steerlens.steering.prompting import Prompting
from steerlens.steering.prompts import Prompt


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sweep runs.

    Attributes:
        conditions, roles: in the order of the numbers that its frame has.
        controls: those beside the steered conditions.
        what: what the vectors were made of, as the caller gave it.
        vectors: with coefficient 1.
        prompts, sampling, placement: as run.
    """

    conditions: tuple[Condition, ...]
    roles: tuple[str, ...]
    controls: ControlPlan
    what: Any
    vectors: tuple[SteeringVector, ...]
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    placement: Placement | None


def plan_sweep(
    model: HookedModel,
    what: Any,
    cells: Sequence[tuple[float, Condition]],
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    placement: Placement | None,
    asked: Sequence[str | Prompting],
) -> Plan:
    """The unsteered condition, one for each cell (a coefficient times a condition), and their controls.

    Args:
        what: what the vectors were made of.
        asked: see `read_controls`.

    Raises:
        SteerlensError: see `plan_controls`.
    """
    vectors = {id(part.vector): part.vector for _, condition in cells for part in condition.injections}
    controls = plan_controls(model, asked, what, list(vectors.values()), prompts, sampling=sampling)
    conditions = [Condition(), *(factor * condition for factor, condition in cells)]
    roles = ["unsteered", *["steered"] * len(cells)]
    for name in controls.names:
        conditions += [controls.beside(name, condition, factor) for factor, condition in cells]
        roles += [name] * len(cells)
    for words in controls.prompting:
        conditions.append(Condition(prompting=words))
        roles.append("prompting")
    made = tuple(vectors.values())
    return Plan(tuple(conditions), tuple(roles), controls, what, made, tuple(prompts), sampling, placement)
