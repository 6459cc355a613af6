"""Strengths that compare: coefficients given by what they come to.

A coefficient of 1 is a sixth of the residual stream at one layer and six times the stream at another. A strength says
how strong in units that hold anywhere, and is solved for the coefficient of each vector (`solve_strengths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from steerlens.arguments import choice, finite_number, listed, numbers, shown
from steerlens.errors import SteerlensError

Measure = Literal["norm_share", "iso_kl", "iso_surprise"]


@dataclass(frozen=True)
class Strength:
    """How strong, in units that compare; made by `norm_share`, `iso_kl` and `iso_surprise`.

    Attributes:
        measure: what is asked for.
        target: how much of it, above 0: a share of the norm, or nats.
    """

    measure: Measure
    target: float

    def __post_init__(self) -> None:
        choice("measure", self.measure, ("norm_share", "iso_kl", "iso_surprise"))
        object.__setattr__(self, "target", finite_number("target", self.target, above=0))

    @property
    def unit(self) -> str:
        """The unit of the target, in words."""
        return {
            "norm_share": "of the norm of the activations",
            "iso_kl": "nats of next-token KL",
            "iso_surprise": "nats per token above unsteered",
        }[self.measure]

    def __str__(self) -> str:
        return f"{self.measure}({self.target:g})"

    __repr__ = __str__


def norm_share(share: float) -> Strength:
    """As strong as makes the vector `share` times as long as the activations that it goes to.

    Averaged over the positions of the prompts that the placement touches; 0.3 is a mild push, 3 drowns the stream.

    Raises:
        SteerlensError: not a finite number above 0.
    """
    return Strength("norm_share", finite_number("share", share, above=0))


def iso_kl(nats: float) -> Strength:
    """As strong as moves the next-token distribution by `nats`: the mean over prompts of KL(steered ‖ unsteered).

    Raises:
        SteerlensError: not a finite number above 0.
    """
    return Strength("iso_kl", finite_number("nats", nats, above=0))


def iso_surprise(nats: float) -> Strength:
    """As strong as makes completions `nats` per token more surprising to the unsteered model than its own are.

    Raises:
        SteerlensError: not a finite number above 0.
    """
    return Strength("iso_surprise", finite_number("nats", nats, above=0))


def check_strength(strength: object) -> Strength:
    """`strength`, if it is one.

    Raises:
        SteerlensError: it is not; the message shows how to make one.
    """
    if isinstance(strength, Strength):
        return strength
    raise SteerlensError(
        f"a strength is sl.norm_share(0.3), sl.iso_kl(0.5) or sl.iso_surprise(1.0), got {shown(strength)}"
    )


def read_coeffs(name: str, given: object) -> list[float | Strength]:
    """Coefficients as a list: numbers, strengths or both, or one of them.

    Raises:
        SteerlensError: anything else, or none.
    """
    if isinstance(given, Strength):
        return [given]
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return list(numbers(name, given))
    some: list[float | Strength] = []
    for one in listed(name, given, of="numbers or strengths"):
        some += [one] if isinstance(one, Strength) else numbers(name, [one])
    return some or list(numbers(name, given))
