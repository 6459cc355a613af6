"""Roles in one prompt: vectors that go to the messages of a role, as vectors at the positions where these stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from steerlens.steering.chats import Span, role_positions
from steerlens.steering.conditions import Condition, Injection
from steerlens.steering.placement import is_role


def at_positions(condition: Condition, spans: Sequence[Span]) -> Condition:
    """The condition as it acts in a prompt whose messages stand at `spans`: an index for every token of a role.

    Raises:
        SteerlensError: the prompt has no words of a role that a vector goes to.
    """
    found: list[Injection] = []
    for injection in condition.injections:
        places: Sequence[object] = [injection.placement]
        if is_role(injection.placement):  # type: ignore[arg-type]
            places = role_positions(spans, str(injection.placement))
        found += [replace(injection, placement=place) for place in places]  # type: ignore[arg-type]
    return Condition(tuple(found), condition.label)
