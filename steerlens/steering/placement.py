"""Where in a sequence a vector goes: names, and the positions they mean."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from steerlens.arguments import shown
from steerlens.errors import SteerlensError

Placement = Literal["front", "mid", "back", "all", "last"] | int
"""Where a vector of n positions goes in a prompt of L tokens (BOS counted):

- `"front"`: positions 0 … n−1 (ActAdd; the BOS row of an ActAdd vector is zero);
- `"mid"`: from L//2 − n//2, as in the original implementation;
- `"back"`: the last n positions of the prompt;
- an index: from that position on, negative ones counted from the end of the prompt;
- `"last"`: a one-position vector at the last position of the prompt; later tokens are not touched;
- `"all"`: a one-position vector at every position after BOS, every later (generated) token included.

All but `"all"` are fixed by the prompt: tokens generated later do not move them and are not touched.
"""

NAMES = ("front", "mid", "back", "all", "last")


def check_placement(placement: Placement) -> None:
    """Nothing, if `placement` is a name or an index.

    Raises:
        SteerlensError: it is neither.
    """
    index = isinstance(placement, Integral) and not isinstance(placement, bool)  # numpy's whole numbers too
    if not index and not (isinstance(placement, str) and placement in NAMES):
        raise SteerlensError(f"placement {shown(placement)} is unknown; use one of {', '.join(NAMES)}, or an index")


def needs_length(placement: Placement) -> bool:
    """Whether the positions depend on the length of the prompt."""
    return placement in ("mid", "back", "last") or (isinstance(placement, int) and placement < 0)


def first_positions(placement: Placement, span: int, lengths: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The first position that a vector of `span` positions covers, for prompts of the given lengths (not `"all"`)."""
    if placement == "front":
        return lengths * 0
    if placement == "mid":
        return lengths // 2 - span // 2
    if placement == "back":
        return lengths - span
    if placement == "last":
        return lengths - 1
    assert isinstance(placement, int)
    return lengths * 0 + placement if placement >= 0 else lengths + placement


def check_fit(placement: Placement, span: int, shortest: int) -> None:
    """Nothing, if a vector of `span` positions fits a prompt of `shortest` tokens.

    Raises:
        SteerlensError: it does not, in the words of what to change.
    """
    if placement in ("all", "last"):
        if span != 1:
            raise SteerlensError(
                f"placement={placement!r} takes a vector of 1 position but this one spans {span}; "
                "choose one with vector.at(i), or use placement='front'"
            )
        return
    if span > shortest:
        raise SteerlensError(
            f"vector spans {span} positions but the prompt has {shortest} tokens; "
            "use a longer prompt or a shorter vector"
        )
    if isinstance(placement, int):
        first = placement if placement >= 0 else shortest + placement
        if first < 0 or first + span > shortest:
            raise SteerlensError(
                f"vector spans {span} positions and placement {placement} puts it at {first} to {first + span - 1}, "
                f"but the prompt has {shortest} tokens; use an index from {-shortest} to {shortest - span}"
            )
