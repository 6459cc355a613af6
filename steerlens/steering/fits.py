"""Whether vectors fit the prompts that they are to steer, asked before the model runs."""

from __future__ import annotations

from collections.abc import Sequence

from steerlens.errors import SteerlensError
from steerlens.steering.conditions import Condition
from steerlens.steering.placement import check_fit


def check_fits(conditions: Sequence[Condition], lengths: Sequence[int], *, names: Sequence[str] = ()) -> None:
    """Nothing, if every vector of every condition fits every prompt where it is placed.

    Args:
        lengths: of the prompts, in tokens.
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
                except SteerlensError as error:
                    if len(lengths) == 1 and len(conditions) == 1:
                        raise
                    prompt = f"{names[number]!r:.60}" if names else f"prompt {number}"
                    raise SteerlensError(f"{condition.label} on {prompt}: {error}") from None
