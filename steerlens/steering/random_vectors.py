"""Random vectors: the control that tells steering from any push of the same size."""

from __future__ import annotations

import dataclasses

import torch

from steerlens.steering.vectors import SteeringVector


def random_like(vector: SteeringVector, *, seed: int) -> SteeringVector:
    """A random direction with the norm of `vector` at each position (rows that are zero stay zero).

    The direction depends on the seed and the layer only, so different coefficients push the same way.
    """
    generator = torch.Generator().manual_seed(hash((seed, vector.layer)) % 2**63)
    noise = torch.randn(vector.values.shape, generator=generator).to(vector.values.device)
    values = noise * (vector.norms / noise.norm(dim=-1))[:, None]
    return dataclasses.replace(
        vector,
        values=values,
        label="random vector",
        source={"method": "random", "like": vector.describe(), "seed": seed},
    )
