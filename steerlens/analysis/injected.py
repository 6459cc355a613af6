"""Which row of a vector goes to which position of a prompt."""

from __future__ import annotations

import torch

from steerlens.models import HookedModel
from steerlens.steering import Injection
from steerlens.steering.placement import check_fit, first_positions


def injected_rows(model: HookedModel, injection: Injection, length: int) -> dict[int, int]:
    """{position in the prompt (BOS at 0): row of the vector} for a prompt of `length` tokens.

    Raises:
        SteerlensError: the vector does not fit the prompt.
    """
    placement, span = injection.placement, injection.vector.n_positions
    assert placement is not None
    check_fit(placement, span, length)
    if placement == "all":
        return dict.fromkeys(range(1 if model.cfg.default_prepend_bos else 0, length), 0)
    first = int(first_positions(placement, span, torch.tensor([length])))
    return {first + row: row for row in range(span)}
