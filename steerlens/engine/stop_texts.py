"""Stop texts in rows of tokens: which rows hold one, and where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.engine.stopping import Stops
from steerlens.models import HookedModel
from steerlens.steering.tokens import reader_after


def end_at_texts(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    tokens: Int[Tensor, "conditions prompts samples new"],
    lengths: Int[Tensor, "conditions prompts samples"],
    finished: Bool[Tensor, "conditions prompts samples"],
) -> None:
    """End completions, in place, where their first stop text ends, even if sampling noticed it only later."""
    for p, ids in enumerate(prompts):
        read = reader_after(model, ids)
        for c, s in ((c, s) for c in range(tokens.shape[0]) for s in range(tokens.shape[2])):
            found = stops.tokens_of_text(tokens[c, p, s, : lengths[c, p, s]].tolist(), read)
            if found is not None:
                lengths[c, p, s], finished[c, p, s] = found[0], True
                tokens[c, p, s, found[1] :] = stops.fill


def with_stop_texts(
    stops: Stops,
    readers: Sequence[Callable[[Sequence[int]], str]],
    tokens: Sequence[Sequence[int]],
    unit_of: Sequence[int],
    new: int,
) -> list[bool]:
    """Which rows contain a stop text; for most, the last tokens are enough to tell."""
    tail = stops.reach + new
    return [
        stops.first_in(readers[unit](ids[-tail:])) is not None
        and (len(ids) <= tail or stops.first_in(readers[unit](ids)) is not None)
        for ids, unit in zip(tokens, unit_of, strict=True)
    ]
