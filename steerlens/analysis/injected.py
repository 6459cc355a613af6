"""Which row of a vector goes to which position of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from steerlens.models import HookedModel
from steerlens.steering import Injection
from steerlens.steering.beginnings import after_bos
from steerlens.steering.chats import Span, role_positions
from steerlens.steering.gates import open_gates
from steerlens.steering.placement import check_fit, is_role, rows_at
from steerlens.steering.ramps import ramp_strengths


def injected_norms(injection: Injection, places: Mapping[int, int]) -> dict[int, float]:
    """By position in the prompt, the norm of what the injection brings there (see `injected_rows`)."""
    norms = injection.vector.norms.tolist()
    index = torch.arange(len(places))
    strengths = [1.0] * len(places)
    if injection.ramp is not None:
        strengths = ramp_strengths(injection.ramp, index, torch.full_like(index, len(places))).abs().tolist()
    return {at: strength * norms[places[at]] for at, strength in zip(sorted(places), strengths, strict=True)}


def injected_rows(
    model: HookedModel, injection: Injection, ids: Sequence[int], spans: Sequence[Span] = ()
) -> dict[int, int]:
    """{position in the prompt (BOS at 0): row of the vector} for a prompt of tokens `ids`; none if its gate is closed.

    Args:
        spans: where the messages stand, if the prompt is a chat.

    Raises:
        SteerlensError: the vector does not fit the prompt.
    """
    placement, span = injection.placement, injection.vector.n_positions
    assert placement is not None
    check_fit(placement, span, len(ids))
    if injection.gate is not None and not open_gates(model, [injection.gate], [ids])[id(injection.gate)][0]:
        return {}
    if is_role(placement):
        return dict.fromkeys(role_positions(spans, str(placement)), 0)
    return rows_at(placement, span, length=len(ids), after_bos=after_bos(model, ids), total=len(ids))
