"""Which row of a vector goes to which position of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from steerlens.models import HookedModel
from steerlens.steering import Injection
from steerlens.steering.beginnings import after_bos
from steerlens.steering.chats import Span, role_positions
from steerlens.steering.gates import open_gates
from steerlens.steering.placement import check_fit, is_role, rows_at


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
