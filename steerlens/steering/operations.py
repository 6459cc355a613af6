"""Operations: what a vector does to an activation. All except addition depend on the activation.

With x an activation, v a row of the vector (at site `z`: its part in one head), v̂ = v/|v|, and |·| the Euclidean norm:

- `"add"`: x + v; the coefficient scales what is added (Turner et al., arXiv 2308.10248).
- `"add_keep_norm"`: (x + v)·|x|/|x + v|. x turns towards v and keeps its norm; the coefficient says how far.
- `"ablate"`: x − (x·v̂)v̂ (Arditi et al., arXiv 2406.11717). Only the direction matters; coefficients have no effect.
- `"clamp"`: x + (t − x·v̂)v̂: the projection on v̂ becomes t, which is `value`, or by default |v|: then `c * vector`
  clamps to c·|v|, and a negative c to the same projection on the other side.
- `"affine"`: x − (x·v̂)v̂ + (m·v̂)v̂ + v: ablated, then given the projection of a mean activation m, plus v
  (Affine Concept Editing, Marshall et al., arXiv 2411.09003).
- `"reft"`: x + (r·x + b)v: v times a number that is read off x, with r the vector `reads` and b `value`. With a unit
  vector R as v and r = w − R it is x + R(w·x + b − R·x), LoReFT of rank 1 (Wu et al., arXiv 2404.03592, equation 2).
  The coefficient scales the edit: 0 changes nothing, 1 is as trained. Heads are read together, as one row.

Zero rows of a vector (BOS of an ActAdd vector, heads left out) do nothing. Whatever the model's dtype, projections and
norms are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError

Operation = Literal["add", "add_keep_norm", "ablate", "clamp", "affine", "reft"]

OPERATIONS = ("add", "add_keep_norm", "ablate", "clamp", "affine", "reft")

ALONE = ("add", "add_keep_norm", "ablate", "clamp")
"""Those that need nothing but a vector."""

_SMALL = 1e-30

Kind = Literal["add", "turn", "project", "read"]
"""How an operation is computed: add rows, add them and restore the norm, set the projection on them to a target, or add
them times a number read off the activation."""


def kind_of(operation: Operation) -> Kind:
    """The kind of computation that an operation needs."""
    kinds: dict[str, Kind] = {"add": "add", "add_keep_norm": "turn", "reft": "read"}
    return kinds.get(operation, "project")


@dataclass(frozen=True, eq=False)
class Table:
    """Rows to change activations by.

    Attributes:
        values: what is added (`"add"`, `"turn"`, `"read"`), or unit directions (`"project"`); zero rows do nothing.
        targets: the resulting projections on the directions, one per head; for `"read"` b in each.
        reads: what activations are multiplied with (`"read"`); None if there is none in the table.
    """

    values: Float[Tensor, "*entries width"]
    targets: Float[Tensor, "*entries heads"]
    reads: Float[Tensor, "*entries width"] | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Table:
        """The same on a device; the values in a dtype (targets and reads are float32)."""
        reads = None if self.reads is None else self.reads.to(device)
        return Table(self.values.to(device=device, dtype=dtype), self.targets.to(device), reads)

    def at(self, entries: int | Int[Tensor, "*some"]) -> Table:
        """The rows of the given entries."""
        reads = None if self.reads is None else self.reads[entries]
        return Table(self.values[entries], self.targets[entries], reads)


def joined(tables: Sequence[Table]) -> Table:
    """The rows of several tables, concatenated."""
    reads = None
    if any(one.reads is not None for one in tables):
        reads = torch.cat([torch.zeros_like(one.values).float() if one.reads is None else one.reads for one in tables])
    return Table(torch.cat([one.values for one in tables]), torch.cat([one.targets for one in tables]), reads)


def table_of(
    values: Float[Tensor, "pos width"],
    operation: Operation,
    *,
    heads: int = 1,
    value: float | None = None,
    mean: Float[Tensor, " width"] | None = None,
    reads: Float[Tensor, " width"] | None = None,
) -> Table:
    """A vector's rows, prepared for an operation.

    Args:
        values: the rows of the vector.
        heads: into how many equal parts a row is divided, each with its own direction.
        value: for `"clamp"`, and b of `"reft"`.
        mean: for `"affine"`.
        reads: for `"reft"`.
    """
    if operation == "reft":
        assert reads is not None
        bias = values.new_full((len(values), heads), value or 0.0)
        return Table(values, bias, reads.to(values).expand_as(values))
    if kind_of(operation) != "project":
        return Table(values, values.new_zeros(len(values), heads))
    by_head = values.unflatten(-1, (heads, -1))
    norms, directions = lengths_and_directions(by_head)
    targets = torch.zeros_like(norms)
    if operation == "clamp":
        targets = norms if value is None else torch.full_like(norms, value)
    elif operation == "affine":
        assert mean is not None
        targets = norms + (directions * mean.to(values).unflatten(-1, (heads, -1))).sum(-1)
    return Table(directions.flatten(-2), targets)


def change(
    x: Float[Tensor, "*batch width"],
    by: Table,
    kind: Kind,
    *,
    strength: Float[Tensor, "*#batch"] | None = None,
) -> Float[Tensor, "*batch width"]:
    """What is to be added to activations `x`, in float32 or wider for all kinds but `"add"`.

    Args:
        by: one row for each activation, or one for all.
        strength: of what is added (`"add"`, `"turn"`, `"read"`), or of the change (`"project"`); by default 1.
    """
    values = by.values
    if strength is not None and kind != "project":
        values = values * strength[..., None]
    if kind == "add":
        return values.expand_as(x)
    heads = by.targets.shape[-1]
    wide = torch.promote_types(x.dtype, torch.float32)
    if kind == "read":
        assert by.reads is not None
        number = (x.to(wide) * by.reads).sum(-1) + by.targets[..., 0]
        return number[..., None] * values.to(wide)
    before, row = x.to(wide).unflatten(-1, (heads, -1)), values.to(wide).unflatten(-1, (heads, -1))
    if kind == "project":
        missing = by.targets - (before * row).sum(-1)
        missing = missing if strength is None else missing * strength[..., None]
        return (missing[..., None] * row).flatten(-2)
    (length, _), (_, turned) = lengths_and_directions(before), lengths_and_directions(before + row)
    acts = (row != 0).any(-1)  # a zero row changes nothing, not even by rounding
    return torch.where(acts[..., None], length[..., None] * turned - before, 0.0).flatten(-2)


def lengths_and_directions(
    rows: Float[Tensor, "*batch width"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch width"]]:
    """The Euclidean norm of each row, and the row of norm 1 along it; both zero for a zero row.

    Rows are divided by their largest entry first: squares of entries below 1e-19 or above 1e19 are 0 or infinity in
    float32, and a direction must not depend on the unit. NaN and infinity make both NaN.
    """
    largest = rows.abs().amax(-1, keepdim=True)
    # Subnormal numbers have few digits, so they are lifted before they are divided by each other.
    lift = torch.where(largest < _SMALL, 1 / _SMALL, 1.0).to(rows)
    scaled = rows * lift / torch.where(largest == 0, 1.0, largest * lift)
    norms = scaled.norm(dim=-1, keepdim=True)
    return (norms * largest).squeeze(-1), scaled / torch.where(norms == 0, 1.0, norms)


def check_operation(operation: Operation, *, value: object, mean: object, reads: object = None) -> None:
    """Check that there is such an operation and that it was given what it needs.

    Raises:
        SteerlensError: an unknown operation, or a missing or superfluous `value`, `mean` or `reads`.
    """
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise SteerlensError(f"operation {operation!r} is unknown; use one of {', '.join(OPERATIONS)}")
    if value is not None and operation not in ("clamp", "reft"):
        raise SteerlensError(
            f"value= is what operation='clamp' sets a projection to, and the bias of 'reft'; {operation!r} takes none"
        )
    if (mean is not None) != (operation == "affine"):
        wanted = "takes no mean=" if mean is not None else "needs mean=, the vector of a mean activation"
        raise SteerlensError(f"operation {operation!r} {wanted}; 'affine' is the operation with one")
    if (reads is not None) != (operation == "reft"):
        wanted = "takes no reads=" if reads is not None else "needs reads=, the vector that activations are read with"
        raise SteerlensError(f"operation {operation!r} {wanted}; 'reft' is the operation with one, made by sl.reft")
