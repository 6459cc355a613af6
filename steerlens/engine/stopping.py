"""Where completions end: at the model's own end tokens, and at ids and texts of the caller's choice."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from steerlens.engine.sampling_settings import Sampling
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, end_ids
from steerlens.steering.tokens import pad_id, tokenizer_of

# How far before the newest tokens a stop text may have begun, beyond its own length in bytes.
_MARGIN = 4


@dataclass(frozen=True)
class Stops:
    """What ends a completion.

    Attributes:
        ids: tokens that end it.
        texts: texts that end it as soon as they occur in it.
        fill: the token with which a row is filled after its end.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    fill: int

    @staticmethod
    def of(model: HookedModel, sampling: Sampling) -> Stops:
        """The stops of a job: the model's ends (see `end_ids`) unless `stop_at_end` is False, and `sampling.stop`.

        Raises:
            SteerlensError: a stop id outside the vocabulary.
        """
        ends = end_ids(model) if sampling.stop_at_end else ()
        chosen = tuple(one for one in sampling.stop if isinstance(one, int))
        for one in chosen:
            if one >= model.cfg.d_vocab:
                raise SteerlensError(f"stop: token {one} is outside the vocabulary; use 0 to {model.cfg.d_vocab - 1}")
        ids = tuple(dict.fromkeys((*ends, *chosen)))
        texts = tuple(one for one in sampling.stop if isinstance(one, str))
        return Stops(ids, texts, ids[0] if ids else pad_id(model))

    def __bool__(self) -> bool:
        return bool(self.ids or self.texts)

    @property
    def reach(self) -> int:
        """How many tokens a stop text may take: each has at least one byte."""
        return max((len(text.encode()) for text in self.texts), default=0) + _MARGIN

    def first_in(self, text: str) -> tuple[int, int] | None:
        """Where the first stop text in a completion begins and ends; None if there is none."""
        found = [(place, place + len(one)) for one in self.texts if (place := text.find(one)) >= 0]
        return min(found, default=None)

    def tokens_of_text(self, ids: Sequence[int], read: Callable[[Sequence[int]], str]) -> tuple[int, int] | None:
        """How many tokens come before the first stop text (counting one that holds part of both), and how many with it.

        None if there is no stop text among the tokens.
        """
        place = self.first_in(read(ids))
        if place is None:
            return None
        begin, end = (bisect_left(range(len(ids)), at, key=lambda n: len(read(ids[:n]))) for at in place)
        return begin, end


def exempt_from_penalty(model: HookedModel, stops: Stops) -> Bool[Tensor, " d_vocab"]:
    """Which tokens are exempt from the frequency penalty: special ones and those that end a completion.

    A chat template writes the end of a turn once per turn, so a model penalised for it would never end one.
    """
    tokenizer = tokenizer_of(model)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special), *stops.ids}
    exempt = torch.zeros(int(model.cfg.d_vocab), dtype=torch.bool, device="cpu")  # whatever the default device
    exempt[[number for number in {*special, *end_ids(model)} if 0 <= number < len(exempt)]] = True
    return exempt
