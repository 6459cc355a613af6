"""The rows of a batch that still decode: what has been drawn in each, and whether it has ended."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.engine.broken_rows import NO_TOKEN
from steerlens.engine.token_counts import TokenCounts


@dataclass(frozen=True, eq=False)
class LiveRows:
    """The rows of a batch that are still being decoded, after some tokens. To go back, use an earlier value.

    Attributes:
        place: where each row belongs in the result.
        keys: of their random streams.
        ended: whether the end has been drawn.
        drawn: the last tokens.
        counts: how often each token occurs in them, if the sampling needs it.
    """

    place: Int[Tensor, " row"]
    keys: Int[Tensor, " row"]
    ended: Bool[Tensor, " row"]
    drawn: Int[Tensor, " row"]
    counts: TokenCounts | None

    @staticmethod
    def begin(
        keys: Int[Tensor, "unit sample"],
        prompts: Int[Tensor, "unit pos"],
        mask: Int[Tensor, "unit pos"],
        *,
        counted: bool,
        exempt: Bool[Tensor, " d_vocab"] | None,
    ) -> LiveRows:
        """The rows of a batch before their first token, each unit's next to each other."""
        place = torch.arange(keys.numel(), device=prompts.device)
        counts = TokenCounts.of_prompts(prompts, mask, exempt).repeat(keys.shape[1]) if counted else None
        return LiveRows(
            place, keys.flatten().to(place.device), torch.zeros_like(place, dtype=torch.bool), place, counts
        )

    def after(self, drawn: Int[Tensor, " row"], ends: Int[Tensor, " ends"], fill: int) -> LiveRows:
        """The rows with one more token each; those that have ended get `fill`."""
        drawn = torch.where(self.ended, fill, drawn)
        ended = self.ended | (drawn[:, None] == ends).any(-1) | (drawn == NO_TOKEN)
        counts = None if self.counts is None else self.counts.add(drawn)
        return replace(self, ended=ended, drawn=drawn, counts=counts)

    def select(self, kept: Int[Tensor, " kept"]) -> LiveRows:
        """These rows, in this order."""
        counts = None if self.counts is None else self.counts.select(kept)
        return LiveRows(self.place[kept], self.keys[kept], self.ended[kept], self.drawn[kept], counts)
