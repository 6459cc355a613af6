"""Roles in one prompt: vectors that go to the messages of a role, as vectors at the positions where these stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from steerlens.steering.chats import Span, role_positions
from steerlens.steering.conditions import Condition, Injection
from steerlens.steering.placement import is_role
from steerlens.steering.ramps import Ramp, ramp_strengths


def at_positions(condition: Condition, spans: Sequence[Span]) -> Condition:
    """The condition as it acts in a prompt whose messages stand at `spans`: an index for every token of a role.

    Raises:
        SteerlensError: the prompt has no words of a role that a vector goes to.
    """
    found: list[Injection] = []
    for injection in condition.injections:
        if not is_role(injection.placement):  # type: ignore[arg-type]
            found.append(injection)
            continue
        places = torch.tensor(role_positions(spans, str(injection.placement)))
        for index, place in enumerate(places.tolist()):
            ramp = injection.ramp
            if ramp is not None:
                ramp = Ramp(ramp_strengths(ramp, torch.tensor([index]), torch.tensor([len(places)])).tolist())
            found.append(replace(injection, placement=place, ramp=ramp))
    return Condition(tuple(found), condition.label)
