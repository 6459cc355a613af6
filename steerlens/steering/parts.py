"""Parts: the injections of a batch, each into its own rows, with its values ready on the device."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.models import site_hook
from steerlens.steering.chats import Span, role_positions
from steerlens.steering.conditions import Injection, rows_of
from steerlens.steering.operations import Table
from steerlens.steering.placement import Placement, is_role
from steerlens.steering.receipts import Receipt


class Part:
    """An injection into some rows of a batch, with its values ready on the residual stream's device and dtype.

    Attributes:
        injection: the vector and its placement.
        rows: indices of the rows it goes to; None for every row.
        gate: what decides for which prompts it acts, if anything does.
        ramp: strengths by position, if they are not all 1.
        positions: where the messages of a role stand in the prompt of these rows; None for other placements.
    """

    def __init__(self, injection: Injection, rows: Int[Tensor, " some"] | None = None) -> None:
        vector = injection.vector
        self.injection, self.rows = injection, rows
        self.positions: tuple[int, ...] | None = None
        self.placement: Placement = injection.placement  # type: ignore[assignment]
        self.span = vector.n_positions
        self.kind = injection.kind
        self.gate, self.ramp = injection.gate, injection.ramp
        self.receipt = Receipt(
            site_hook(vector.layer, vector.site),
            vector.layer,
            vector.title,
            self.placement,
            norm=vector.norm,
            operation=injection.operation,
        )
        self._ready: dict[tuple[torch.device, torch.dtype], Table] = {}

    @property
    def is_plain(self) -> bool:
        """Whether it is added at full strength, its rows one after the other."""
        return self.kind == "add" and self.positions is None and self.ramp is None

    def on_rows(self, rows: Int[Tensor, " some"]) -> Part:
        """The same part for other rows; the receipt is shared, so that it counts the whole run."""
        other = copy(self)
        other.rows = rows
        return other

    def in_prompt(self, spans: Sequence[Span]) -> Part:
        """The same part for rows of a prompt whose messages stand at `spans`; the receipt is shared.

        Raises:
            SteerlensError: it goes to a role, and the prompt has no words of it.
        """
        if not is_role(self.placement):
            return self
        other = copy(self)
        other.positions = role_positions(spans, str(self.placement))
        return other

    def table_like(self, x: Tensor) -> Table:
        """The rows, made ready for the operation, on the device and in the dtype of `x` (moved once, then kept)."""
        key = (x.device, x.dtype)
        if key not in self._ready:
            self._ready[key] = rows_of(self.injection).to(*key)
        return self._ready[key]
