"""Where in a sequence a vector goes: names, and the positions they mean."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.arguments import shown
from steerlens.errors import SteerlensError

Placement = (
    Literal["front", "mid", "back", "all", "prompt", "generated", "from_last", "last", "system", "user", "assistant"]
    | int
)
"""Where a vector of n positions goes in a prompt of L tokens (BOS counted):

- `"front"`: positions 0 … n−1 (ActAdd; the BOS row of an ActAdd vector is zero);
- `"mid"`: from L//2 − n//2, as in the original implementation;
- `"back"`: the last n positions of the prompt;
- an index: from that position on, negative ones counted from the end of the prompt;
- `"last"`: a one-position vector at the last position of the prompt; later tokens are not touched;
- `"all"`: a one-position vector at every position after BOS, every later (generated) token included;
- `"prompt"`: a one-position vector at every position of the prompt after BOS; later tokens are not touched;
- `"generated"`: a one-position vector at every token after the prompt, and at no position of the prompt;
- `"from_last"`: a one-position vector at the last position of the prompt and at every later token, which are the
  positions that generated tokens are predicted from (Contrastive Activation Addition, arXiv 2312.06681);
- `"system"`, `"user"`, `"assistant"`: in a chat, a one-position vector at every token of what that role says in it, all
  its messages together, and not at the template's own tokens; later tokens are not touched.

The prompt is what the model is first run on: what later passes add to a key-value cache, what `generate` appends, and
the text that `score` is asked about are later tokens. They never move a placement. What counts as BOS is read from the
tokens: the BOS tokens that a prompt begins with, whoever put them there.
"""

ROLES = ("system", "user", "assistant")
NAMES = ("front", "mid", "back", "all", "prompt", "generated", "from_last", "last", *ROLES)
_RANGES = ("all", "prompt", "generated", "from_last")
_WITHOUT_END = torch.iinfo(torch.long).max


def check_placement(placement: Placement) -> None:
    """Nothing, if `placement` is a name or an index.

    Raises:
        SteerlensError: it is neither.
    """
    index = isinstance(placement, Integral) and not isinstance(placement, bool)  # numpy's whole numbers too
    if not index and not (isinstance(placement, str) and placement in NAMES):
        raise SteerlensError(f"placement {shown(placement)} is unknown; use one of {', '.join(NAMES)}, or an index")


def is_range(placement: Placement) -> bool:
    """Whether one row of a vector goes to as many positions as there are, instead of each row to one."""
    return placement in _RANGES


def is_role(placement: Placement) -> bool:
    """Whether it means the messages of a role, so that a prompt has to say where these stand."""
    return placement in ROLES


def takes_one_position(placement: Placement) -> bool:
    """Whether only a vector of one position can go there."""
    return placement == "last" or is_range(placement) or is_role(placement)


def reaches_later(placement: Placement) -> bool:
    """Whether it touches what comes after the prompt."""
    return placement in ("all", "generated", "from_last")


def needs_length(placement: Placement) -> bool:
    """Whether the positions that it touches in a prompt depend on where the prompt ends."""
    return placement in ("mid", "back", "last", "from_last") or (isinstance(placement, int) and placement < 0)


def bounds(
    placement: Placement, lengths: Int[Tensor, " rows"], after_bos: Int[Tensor, " rows"]
) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """The first position of a range (see `is_range`), and the first one behind it, in sequences of any length.

    Args:
        lengths: of the prompts.
        after_bos: the first position after BOS in each.
    """
    first = {"generated": lengths, "from_last": lengths - 1}.get(str(placement), after_bos)
    return first, lengths if placement == "prompt" else torch.full_like(lengths, _WITHOUT_END)


def first_positions(placement: Placement, span: int, lengths: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The first position that a vector of `span` positions covers in prompts of these lengths (no range, no role)."""
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


def rows_at(placement: Placement, span: int, *, length: int, after_bos: int, total: int) -> dict[int, int]:
    """{position: row of the vector that goes there} in a sequence of `total` tokens that begins with the prompt.

    (Of no role: where its messages stand is not said by lengths.)
    """
    one = torch.tensor([length])
    if is_range(placement):
        first, stop = bounds(placement, one, torch.tensor([after_bos]))
        return dict.fromkeys(range(int(first), min(int(stop), total)), 0)
    first = first_positions(placement, span, one)
    return {int(first) + row: row for row in range(span)}


def check_fit(placement: Placement, span: int, shortest: int) -> None:
    """Nothing, if a vector of `span` positions fits a prompt of `shortest` tokens.

    Raises:
        SteerlensError: it does not, in the words of what to change.
    """
    if takes_one_position(placement):
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
