"""Receipts: what a vector did, recorded during the pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steerlens.steering.operations import Operation
from steerlens.steering.placement import Placement


@dataclass
class Receipt:
    """What one vector did, counted as it happened.

    Attributes:
        hook: name of the hook point.
        layer: its block.
        label: the vector's title.
        placement: where it was meant to go.
        positions: positions it was added at in the first row it reached, counted from that row's first real token.
        applications: rows × forward passes in which something was added.
        norm: Euclidean norm of the vector, which is what is added to one row (0 for a zero vector: added, without
            effect); what other operations add depends on the row.
        operation: what it did.
        fired: with a gate, the numbers of the prompts for which it opened (inside `steer`: rows of the batch of
            prompts that was run last); None without a gate.
    """

    hook: str
    layer: int
    label: str
    placement: Placement
    norm: float
    positions: tuple[int, ...] = ()
    applications: int = 0
    operation: Operation = "add"
    fired: tuple[int, ...] | None = None


def note(receipt: Receipt, positions: Sequence[int], rows: int) -> None:
    """Count one pass in which something was added to `rows` rows, to the first of them at `positions`."""
    if not receipt.applications:
        receipt.positions = tuple(positions)
    receipt.applications += rows
