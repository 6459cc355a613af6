"""Gates: conditions on prompts, so that a vector acts only in those that meet them (CAST, arXiv 2409.05907)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import choice, finite_number, layer_number, numbers, shown
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.steering.beginnings import after_bos
from steerlens.steering.extraction.readings import row_readings
from steerlens.steering.extraction.token_choice import TokenRow
from steerlens.steering.prompts import PromptLike, read_prompts
from steerlens.steering.vectors import SteeringVector, check_vector

GateToken = Literal["last", "mean"]
"""What a gate reads of a prompt: its last token, or the mean over its tokens after BOS."""

# Prompts in one pass of those that gates look at.
_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Gate:
    """A threshold for the projection of a prompt's activation on a direction: what has the gate acts only beyond it.

    Conditional activation steering (CAST, Lee et al., arXiv 2409.05907): a condition vector says which prompts are
    meant, and another vector steers those alone. What is compared here is the projection x·v̂ itself (in the paper:
    the cosine of x with what x becomes when projected), so thresholds have the unit of the activations; `projections`
    shows them for prompts of your own.

    It is decided once per prompt, by the model without any steering or hooks, in a pass over the prompts up to the
    gate's layer; later tokens do not change it. Give it to an `Injection`, or to a `Condition` for all that is in it.

    Attributes:
        direction: a vector of one position; only its direction counts (a negative coefficient turns it round). It is
            read at the vector's site.
        above, below: thresholds, one or both; with both, the projection must lie between them.
        layer: where the activation is read; by default the direction's layer.
        token: `"last"`: at the last token of the prompt; `"mean"`: the mean over its tokens after BOS.
    """

    direction: SteeringVector
    above: float | None = None
    below: float | None = None
    layer: int | None = None
    token: GateToken = "last"

    def __post_init__(self) -> None:
        direction = self.direction
        if not isinstance(direction, SteeringVector):
            raise SteerlensError(f"a gate's direction must be a SteeringVector, got {shown(direction)}")
        if direction.n_positions != 1:
            raise SteerlensError(
                f"a gate's direction has one position, but {direction.label!r:.60} spans {direction.n_positions}; "
                "choose one with vector.at(i)"
            )
        if not bool(direction.values.any()):
            raise SteerlensError(f"a gate needs a direction, but the vector {direction.label!r:.60} is zero")
        for name in ("above", "below"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, finite_number(name, given))
        if self.above is None and self.below is None:
            raise SteerlensError("a gate needs a threshold; give above= or below=, see gate.projections for the range")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise SteerlensError(
                f"no projection is above {self.above:g} and below {self.below:g}; swap the two, or use two conditions"
            )
        choice("token", self.token, ("last", "mean"))
        if self.layer is not None:
            layer = layer_number(self.layer, direction.model.n_layers)
            object.__setattr__(self, "direction", replace(direction, layer=layer))
        object.__setattr__(self, "layer", self.direction.layer)

    @property
    def title(self) -> str:
        """The condition in words: `rudeness at layer 3 > 2`."""
        low = "" if self.above is None else f" > {self.above:g}"
        high = "" if self.below is None else f" < {self.below:g}"
        both = " and" if low and high else ""
        return f"{self.direction.title} at layer {self.layer}{low}{both}{high}"

    def opens(self, projections: Sequence[float]) -> list[bool]:
        """Whether what has the gate acts, for each projection."""
        low = -math.inf if self.above is None else self.above
        high = math.inf if self.below is None else self.below
        return [low < one < high for one in numbers("projections", projections)]

    @for_one_thread
    def projections(self, model: HookedModel, prompts: PromptLike | Sequence[PromptLike]) -> list[float]:
        """The projection of each prompt, which the thresholds are compared with.

        Raises:
            SteerlensError: a direction of another model, an empty prompt.
        """
        require_model(model)
        check_vector(model, self.direction)
        rows = [one.ids for one in read_prompts(model, prompts)]
        return _projections(model, [self], rows)[id(self)].tolist()

    def __repr__(self) -> str:
        return f"Gate({self.title}{'' if self.token == 'last' else ', mean over the prompt'})"


Opened = Mapping[int, tuple[bool, ...]]
"""By the id of a gate: for every prompt, whether it opens."""


def open_gates(model: HookedModel, gates: Iterable[Gate], rows: Sequence[Sequence[int]]) -> Opened:
    """For which prompts each of the gates opens.

    Args:
        rows: the prompts' tokens, without padding.
    """
    different = {id(gate): gate for gate in gates}
    if not different:
        return {}
    found = _projections(model, list(different.values()), rows)
    return {key: tuple(gate.opens(found[key].tolist())) for key, gate in different.items()}


def warn_of_closed(model: HookedModel, gates: Iterable[Gate], rows: Sequence[Sequence[int]], opened: Opened) -> None:
    """A warning for every gate that opens for none of the prompts, with the projections that they have."""
    for gate in {id(gate): gate for gate in gates if not any(opened[id(gate)])}.values():
        values = _projections(model, [gate], rows)[id(gate)]
        warn_closed(gate, f"{len(rows)} prompts, whose projections are {values.min():.3g} to {values.max():.3g}")


def warn_closed(gate: Gate, prompts: str) -> None:
    """The warning that a gate opened for none of the prompts."""
    warnings.warn(f"the gate {gate.title!r:.120} fired in none of {prompts}: nothing is steered", stacklevel=4)


@torch.no_grad()
def _projections(
    model: HookedModel, gates: Sequence[Gate], rows: Sequence[Sequence[int]]
) -> dict[int, Float[Tensor, " rows"]]:
    """By the id of a gate, what it compares with its thresholds, on the CPU: one pass for each site and token read."""
    found: dict[int, Tensor] = {}
    # Equal prompts must have equal projections, whatever rounding does to the rows of a batch.
    distinct = {row: place for place, row in enumerate(dict.fromkeys(map(tuple, rows)))}
    places = torch.tensor([distinct[tuple(row)] for row in rows], device="cpu")
    for site, token in dict.fromkeys((gate.direction.site, gate.token) for gate in gates):
        here = [gate for gate in gates if (gate.direction.site, gate.token) == (site, token)]
        spans = [_span(model, list(row), token) for row in distinct]
        layers = sorted({gate.direction.layer for gate in here})
        readings = row_readings(model, spans, layers, batch_size=_AT_ONCE, site=site)
        for gate in here:
            values = readings[gate.direction.layer]
            unit = gate.direction.values[0] / gate.direction.norm
            found[id(gate)] = (values @ unit.to(values)).cpu()[places]
    return found


def _span(model: HookedModel, ids: list[int], token: GateToken) -> TokenRow:
    begin = len(ids) - 1 if token == "last" else min(after_bos(model, ids), len(ids) - 1)
    return TokenRow(ids, begin, len(ids))
