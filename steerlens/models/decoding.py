"""Decoding: one more token for every row, after a prefill that all samples of a prompt share.

A *unit* is one prompt under one condition; its samples are rows next to each other. Three ways of decoding give the
same logits. `PrefixDecoder` keeps a unit's keys and values once, whatever the number of samples, and writes new ones in
place (shared-prefix attention, as in Hydragen, arXiv 2402.05099); it walks the blocks of a HookedTransformer by itself,
so it is for models without hooks. `CacheDecoder` is for all others, `WholeDecoder` for decoding without a cache.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models.prefix_decoding import PrefixDecoder, walkable
from steerlens.models.protocol import HookedModel
from steerlens.models.running import (
    Cache,
    decode_logits,
    expand_cache,
    keep_cache_rows,
    prefill,
)


@runtime_checkable
class Decoder(Protocol):
    """What goes on from a prefill of units to samples of each."""

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows d_vocab"]:
        """Next-token logits after one more token per row."""

    def leave(self, ended: Bool[Tensor, " rows"]) -> Int[Tensor, " kept"] | None:
        """The rows that stay when ended ones leave, in their new order; None if none can. They have left then.

        Some ended rows may stay, to keep the shape that the rest needs.
        """


class Decoders:
    """Makes the decoder of each batch, the fastest that is exact for the model.

    Args:
        compiled: compile the step (see `generate`). One that is compiled is filled anew for a batch of the same shape.

    Raises:
        SteerlensError: `compiled` on a model that `PrefixDecoder` does not know.
    """

    def __init__(self, model: HookedModel, *, compiled: bool = False) -> None:
        self._model, self._compiled = model, compiled
        self._last: PrefixDecoder | None = None
        if compiled and not walkable(model, longest=1):
            raise SteerlensError(
                "compile=True works on a HookedTransformer of the usual kind with no hooks on it; leave it out here, "
                "or load the model with bridge=False"
            )

    def begin(
        self,
        cache: Cache,
        attention_mask: Int[Tensor, "unit pos"],
        *,
        samples: int,
        room: int,
        hooked: bool = False,
    ) -> Decoder:
        """A decoder that goes on from a prefill.

        Args:
            cache: of the prefill, a row per unit. It belongs to the decoder from now on.
            attention_mask: of the left-padded prompts.
            samples: rows per unit.
            room: how many tokens per row will be asked for, at most.
            hooked: whether hooks will be put on the model while it decodes.
        """
        if hooked or not walkable(self._model, longest=attention_mask.shape[1] + room):
            return CacheDecoder(self._model, cache, attention_mask, samples=samples)
        last, shape = self._last, (*attention_mask.shape, samples, room)
        if last is not None and last.shape == shape:
            last.fill(cache, attention_mask)
            return last
        decoder = PrefixDecoder(self._model, cache, attention_mask, samples=samples, room=room, compiled=self._compiled)
        self._last = decoder if self._compiled else None
        return decoder


class CacheDecoder:
    """Decodes with the model's own forward and cache, every row with a copy of its unit's."""

    def __init__(self, model: HookedModel, cache: Cache, attention_mask: Tensor, *, samples: int) -> None:
        self._model = model
        self._cache = expand_cache(cache, samples)
        self._mask = attention_mask.repeat_interleave(samples, dim=0)

    def step(self, tokens: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return decode_logits(self._model, tokens[:, None], self._mask, self._cache)

    def leave(self, ended: Tensor) -> Tensor | None:
        kept = (~ended).nonzero().flatten()
        self._cache, self._mask = keep_cache_rows(self._cache, kept), self._mask[kept]
        return kept


class WholeDecoder:
    """Decodes by running the whole sequence for every token."""

    def __init__(self, model: HookedModel, tokens: Tensor, attention_mask: Tensor, *, samples: int) -> None:
        self._model = model
        self._tokens = tokens.repeat_interleave(samples, dim=0)
        self._mask = attention_mask.repeat_interleave(samples, dim=0)

    def step(self, tokens: Tensor) -> Tensor:
        self._tokens = torch.cat([self._tokens, tokens[:, None]], dim=1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return prefill(self._model, self._tokens, self._mask, use_cache=False)[0]

    def leave(self, ended: Tensor) -> Tensor | None:
        kept = (~ended).nonzero().flatten()
        self._tokens, self._mask = self._tokens[kept], self._mask[kept]
        return kept
