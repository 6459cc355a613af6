"""Conditions: what steers one run. The unsteered baseline is a condition like any other, with no injections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from steerlens.arguments import finite_number, listed, shown, text
from steerlens.errors import SteerlensError, in_one_line
from steerlens.models import HookedModel, ModelStamp
from steerlens.steering.gates import Gate
from steerlens.steering.injection_files import InFile
from steerlens.steering.operations import Kind, Operation, Table, check_operation, kind_of, table_of
from steerlens.steering.placement import Placement, check_placement
from steerlens.steering.prompting import Prompting
from steerlens.steering.ramps import Ramp, check_ramp
from steerlens.steering.vectors import SteeringVector, check_vector, check_vector_site


@dataclass(frozen=True, eq=False)
class Injection(InFile):
    """A vector, where it goes, and what it does there.

    Attributes:
        vector: determines the site and the layer.
        placement: at which positions; None means the vector's own.
        operation: what happens there; see `Operation`, also for what the vector's coefficient means to each.
        value: for `"clamp"`, the projection on the vector's direction that activations are set to; for `"reft"`, b.
        mean: for `"affine"`, a mean activation of the same layer and site, as a vector of one position.
        gate: the prompts in which it acts; None means all.
        ramp: strengths by position; None means 1 at all.
        reads: for `"reft"`, what activations are read with, as a vector of one position of the same layer and site.
    """

    vector: SteeringVector
    placement: Placement | None = None
    operation: Operation = "add"
    value: float | None = None
    mean: SteeringVector | None = None
    gate: Gate | None = None
    ramp: Ramp | None = None
    reads: SteeringVector | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.vector, SteeringVector):
            raise SteerlensError(f"expected a SteeringVector, got {shown(self.vector)}")
        if self.placement is None:
            object.__setattr__(self, "placement", self.vector.placement)
        check_placement(self.placement)  # type: ignore[arg-type]
        if not isinstance(self.placement, str):
            object.__setattr__(self, "placement", int(self.placement))  # type: ignore[arg-type]
        check_operation(self.operation, value=self.value, mean=self.mean, reads=self.reads)
        if self.value is not None:
            object.__setattr__(self, "value", finite_number("value", self.value))
        self._check_beside("mean", self.mean)
        self._check_beside("reads", self.reads)
        check_gate(self.gate, self.vector)
        check_ramp(self.ramp, self.placement)  # type: ignore[arg-type]
        if self.kind == "project" and not bool(self.vector.values.any()):
            raise SteerlensError(
                f"operation {self.operation!r} needs a direction, but the vector {self.vector.label!r} is zero; "
                "give it another coefficient than 0"
            )

    def _check_beside(self, name: str, other: object) -> None:
        if other is None:
            return
        if not isinstance(other, SteeringVector):
            raise SteerlensError(f"{name} must be a SteeringVector, got {shown(other)}")
        mine, theirs = [(one.layer, one.site, one.heads) for one in (self.vector, other)]
        if mine != theirs or other.n_positions != 1 or self.vector.model.difference(other.model) is not None:
            raise SteerlensError(
                f"{name} must be one position of the model, layer and site of the vector ({self.vector.site!r} of "
                f"layer {self.vector.layer}), got {other!r}"
            )

    @property
    def kind(self) -> Kind:
        """How the operation is computed."""
        return kind_of(self.operation)

    @property
    def title(self) -> str:
        """The vector's title, with what it does unless it is added, and when."""
        to = "" if self.value is None or self.operation != "clamp" else f" to {self.value:g}"
        does = "" if self.operation == "add" else f"{self.operation} "
        when = "" if self.gate is None else f" if {self.gate.title}"
        ramp = "" if self.ramp is None else f", {self.ramp.title}"
        return f"{does}{self.vector.title}{to}{ramp}{when}"

    def __repr__(self) -> str:
        vector = self.vector
        site = "" if vector.site == "resid_pre" else f", site={vector.site!r}"
        where = f"layer={vector.layer}{site}, placement={self.placement!r}, model={vector.model.name!r}"
        return in_one_line(f"Injection({self.title}, {where})", most=400)

    def __mul__(self, factor: float) -> Injection:
        return replace(self, vector=self.vector * factor)

    __rmul__ = __mul__


def check_gate(gate: object, vector: SteeringVector) -> None:
    """Raise SteerlensError unless it is None, or a gate of the vector's model."""
    if gate is None:
        return
    if not isinstance(gate, Gate):
        raise SteerlensError(f"gate must be a Gate, got {shown(gate)}; make one with Gate(direction, above=…)")
    if (difference := gate.direction.model.difference(vector.model)) is not None:
        raise SteerlensError(f"the gate's direction and the vector belong to two models: {difference}")


def _gated(injection: Injection, gate: Gate) -> Injection:
    if injection.gate is not None and injection.gate is not gate:
        raise SteerlensError(
            f"the injection {injection.vector.label!r:.60} has a gate of its own; give one to it or to the condition"
        )
    return replace(injection, gate=gate)


def gates_of(conditions: Iterable[Condition]) -> list[Gate]:
    """The gates of all injections, possibly with repeats."""
    return [one.gate for condition in conditions for one in condition.injections if one.gate is not None]


def rows_of(injection: Injection) -> Table:
    """The rows of an injection's vector, prepared for its operation."""
    vector, mean = injection.vector, injection.mean
    return table_of(
        vector.values,
        injection.operation,
        heads=vector.heads,
        value=injection.value,
        mean=None if mean is None else mean.values[0],
        reads=None if injection.reads is None else injection.reads.values[0],
    )


@dataclass(frozen=True, eq=False)
class Condition:
    """Any number of injections that act together; or words in their place.

    Attributes:
        injections: none for the unsteered baseline.
        label: for tables and figures; by default made from the vectors' titles.
        gate: the prompts in which all of it acts, in place of a gate for every injection; None means all.
        prompting: what the model is told instead of being steered.
    """

    injections: tuple[Injection, ...] = ()
    label: str = ""
    gate: Gate | None = None
    prompting: Prompting | None = None
    _factor: float | None = field(default=None, init=False, repr=False)

    # numpy numbers must leave the multiplication to this class
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        if isinstance(self.injections, SteeringVector | Injection):
            raise SteerlensError(
                "a Condition takes a tuple of injections; give Condition((Injection(vector),)), or the vector alone "
                "where a steering= is asked for"
            )
        object.__setattr__(self, "injections", tuple(listed("injections", self.injections, of="injections")))
        text("label", self.label)
        for injection in self.injections:
            if not isinstance(injection, Injection):
                raise SteerlensError(
                    f"expected an Injection in a Condition, got {shown(injection)}; use Injection(vector)"
                )
        if self.gate is not None:
            object.__setattr__(self, "injections", tuple(_gated(one, self.gate) for one in self.injections))
        if self.prompting is not None and (self.injections or not isinstance(self.prompting, Prompting)):
            raise SteerlensError(
                "a Condition has either injections or words, as in Condition(prompting=Prompting('Be brief.')), got "
                f"{len(self.injections)} injections and {shown(self.prompting)}"
            )
        if not self.label and self.prompting is not None:
            object.__setattr__(self, "label", self.prompting.title)
        if not self.label:
            object.__setattr__(self, "label", self._titles())

    def _titles(self) -> str:
        return ", ".join(injection.title for injection in self.injections) or "unsteered"

    @staticmethod
    def of(
        parts: Iterable[SteeringVector | Injection | Condition], *, label: str = "", gate: Gate | None = None
    ) -> Condition:
        """One condition of several vectors (of any layers and sites), injections or conditions, which act together.

        Weights are factors: `Condition.of([0.5 * early, late])`. The whole counts as coefficient 1, so that
        `5 * condition` has coefficient 5 in tables and sweeps, whatever the weights.

        Args:
            label: one name for all of them; by default their titles.
            gate: the prompts in which all of it acts.

        Raises:
            SteerlensError: no parts, or something that is none.
        """
        if isinstance(parts, SteeringVector | Injection | Condition):
            parts = [parts]
        given = listed("parts", parts, of="vectors")
        if not given:
            raise SteerlensError("parts is empty; give at least one vector, or None where a steering= is asked for")
        injections = [injection for part in given for injection in as_condition(part).injections]
        made = Condition(tuple(injections), label, gate)
        object.__setattr__(made, "_factor", 1.0 if math.isnan(made.coeff) else None)
        return made

    def __mul__(self, factor: float) -> Condition:
        """The condition with all its vectors times `factor`."""
        made = Condition(tuple(one * factor for one in self.injections))
        if self.label != self._titles():
            made = replace(made, label=self.label if factor == 1 else f"{factor:g} × ({self.label})")
        if self._factor is not None or math.isnan(self.coeff):
            object.__setattr__(made, "_factor", float(factor) * (1.0 if self._factor is None else self._factor))
        return made

    __rmul__ = __mul__

    def under(self, gate: Gate) -> Condition:
        """The condition with a gate for all of it."""
        if not isinstance(gate, Gate):
            raise SteerlensError(f"gate must be a Gate, got {shown(gate)}; make one with Gate(direction, above=…)")
        label = "" if self.label == self._titles() else f"{self.label} if {gate.title}"
        return remade(self, self.injections, label=label, gate=gate)

    @property
    def layer(self) -> int | None:
        """The one layer it acts on; None for the baseline and for several layers."""
        layers = {injection.vector.layer for injection in self.injections}
        return layers.pop() if len(layers) == 1 else None

    @property
    def coeff(self) -> float:
        """The coefficient of its one vector; 0 for the baseline, NaN for several vectors of different coefficients.

        Of what `Condition.of` has made of these, the factor that the whole was multiplied by.
        """
        if self._factor is not None:
            return self._factor
        coefficients = {injection.vector.coeff for injection in self.injections} or {0.0}
        return coefficients.pop() if len(coefficients) == 1 else float("nan")

    @property
    def placement(self) -> str:
        """Where its vectors go, as text; empty for the baseline."""
        return ", ".join(dict.fromkeys(str(injection.placement) for injection in self.injections))


def remade(
    condition: Condition, injections: Iterable[Injection], *, label: str = "", gate: Gate | None = None
) -> Condition:
    """The condition with other injections, which count with the same coefficient as a whole."""
    made = Condition(tuple(injections), label, gate)
    object.__setattr__(made, "_factor", condition._factor)
    return made


Steering = SteeringVector | Injection | Condition | Prompting | tuple[SteeringVector | Injection, ...] | None
"""One condition: a vector, an injection, a tuple of those (acting together), a Condition, words (`Prompting`), or None
(unsteered)."""


def as_condition(steering: Steering, *, placement: Placement | None = None, words: bool = False) -> Condition:
    """What the caller meant by one condition.

    Args:
        words: whether a Prompting will do.

    Raises:
        SteerlensError: anything that is not one of the forms of `Steering`.
    """
    if steering is None:
        return Condition()
    if isinstance(steering, Prompting):
        steering = Condition(prompting=steering)
    if isinstance(steering, Condition):
        if steering.prompting is not None and not words:
            raise SteerlensError(
                "Prompting changes the prompt, so there are no positions to compare; it is for generate and sweep: "
                "give the prompt with its words here, or a vector"
            )
        return steering
    parts = steering if isinstance(steering, tuple) else (steering,)
    injections = []
    for part in parts:
        if isinstance(part, SteeringVector):
            part = Injection(part, placement)
        if not isinstance(part, Injection):
            raise SteerlensError(
                f"expected a SteeringVector, a tuple of them, or None, got {shown(part)}; "
                "make a vector with actadd(model, …)"
            )
        injections.append(part)
    return Condition(tuple(injections))


def as_conditions(
    steering: Steering | Sequence[Steering], *, placement: Placement | None = None, words: bool = False
) -> tuple[Condition, ...]:
    """The conditions of a job: a list is many conditions; anything else is one (a tuple: one of several vectors)."""
    if placement is not None:
        check_placement(placement)
    if isinstance(steering, list):
        if not steering:
            raise SteerlensError("the list of conditions is empty; give at least one, None for the unsteered model")
        return tuple(as_condition(one, placement=placement, words=words) for one in steering)
    return (as_condition(steering, placement=placement, words=words),)  # type: ignore[arg-type]


def check_conditions(model: HookedModel, conditions: Iterable[Condition]) -> None:
    """Raise SteerlensError unless every vector of the conditions belongs to `model`."""
    known: set[ModelStamp] = set()  # comparing reads the model's weights, which waits for its device, so do it once
    for condition in conditions:
        for injection in condition.injections:
            for vector in (injection.vector, *([] if injection.gate is None else [injection.gate.direction])):
                if vector.model not in known:
                    check_vector(model, vector)
                    known.add(vector.model)
                check_vector_site(model, vector)
