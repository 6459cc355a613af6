"""Rows of logits, streams of random numbers, and what tells whether numbers are as random as they should be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steerlens.engine.random_streams import row_keys, uniforms


def gaussian(rows: int, d_vocab: int, *, scale: float = 3.0, seed: int = 0) -> Tensor:
    return torch.randn(rows, d_vocab, generator=torch.Generator().manual_seed(seed)) * scale


def stream(n: int, *, seed: int = 0, step: int = 0) -> Tensor:
    return uniforms(row_keys(seed, [[1, 2, 3]], n)[0], step)


def chi_square_z(observed: Tensor, expected: Tensor) -> float:
    """How many standard deviations Pearson's statistic lies from its mean (Wilson and Hilferty's cube root)."""
    degrees = len(observed) - 1
    statistic = ((observed.double() - expected) ** 2 / expected).sum().item()
    spread = 2 / (9 * degrees)
    return ((statistic / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
