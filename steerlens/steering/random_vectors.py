"""Random vectors: the control that distinguishes steering from any push of the same size."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Literal

import torch

from steerlens.arguments import seed_number
from steerlens.steering.conditions import Condition, remade
from steerlens.steering.vectors import SteeringVector

Control = Literal["random"] | None
"""What steered conditions are held against: random vectors of equal norm, or nothing."""


def random_condition(condition: Condition, *, seed: int) -> Condition:
    """The condition with every vector replaced by a random one of its norm (see `random_like`).

    Two vectors at one layer get directions of their own.
    """
    seen: dict[int, int] = {}
    injections = []
    for injection in condition.injections:
        layer = injection.vector.layer
        seen[layer] = seen.get(layer, -1) + 1
        # (a seed has 64 bits)
        own = seed + seen[layer] * (1_000_003 if seed < 2**62 else -1_000_003)
        injections.append(dataclasses.replace(injection, vector=random_like(injection.vector, seed=own)))
    return remade(condition, injections, label="" if len(injections) == 1 else "random vectors")


def random_like(vector: SteeringVector, *, seed: int) -> SteeringVector:
    """A random direction with the norm of `vector` at each position (rows that are zero stay zero).

    The direction depends only on the seed and the layer, so different coefficients push the same way.

    Raises:
        SteerlensError: a seed that is not a 64-bit whole number.
    """
    # (Python's own hash says the same of -1 and -2.)
    place = hashlib.blake2b(f"{seed_number(seed)}:{vector.layer}".encode(), digest_size=8, person=b"steerlens noise")
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(place.digest(), "little") % 2**63)
    # Whatever dtype and device the caller has made the default.
    noise = torch.randn(vector.values.shape, generator=generator, dtype=torch.float32, device="cpu")
    noise = noise.to(vector.values.device)
    values = noise * (vector.norms / noise.norm(dim=-1))[:, None]
    return dataclasses.replace(
        vector,
        values=values,
        label="random vector",
        source={"method": "random", "like": vector.describe(), "seed": seed},
    )
