"""Whether vectors fit the prompts that they are to steer, checked before the model runs."""

from __future__ import annotations

from collections.abc import Sequence

from steerlens.errors import SteerlensError
from steerlens.steering.chats import Span, role_positions
from steerlens.steering.conditions import Condition
from steerlens.steering.placement import check_fit, is_role


def check_fits(
    conditions: Sequence[Condition],
    lengths: Sequence[int],
    *,
    spans: Sequence[Sequence[Span]] = (),
    names: Sequence[str] = (),
) -> None:
    """Nothing, if every vector of every condition fits every prompt where it is placed.

    Args:
        lengths: of the prompts, in tokens.
        spans: where the messages of those that are chats stand, prompt by prompt; by default none is a chat.
        names: the prompts, for the message; by default their numbers.

    Raises:
        SteerlensError: one does not; where there are several, the message says which condition on which prompt.
    """
    seen = set()
    for condition in conditions:
        for injection in condition.injections:
            placement, span = injection.placement, injection.vector.n_positions
            if (placement, span) in seen:
                continue
            seen.add((placement, span))
            for number, length in enumerate(lengths):
                try:
                    check_fit(placement, span, length)  # type: ignore[arg-type]
                    if is_role(placement):  # type: ignore[arg-type]
                        role_positions(spans[number] if spans else (), str(placement))
                except SteerlensError as error:
                    if len(lengths) == 1 and len(conditions) == 1:
                        raise
                    prompt = f"{names[number]!r:.60}" if names else f"prompt {number}"
                    raise SteerlensError(f"{condition.label} on {prompt}: {error}") from None
