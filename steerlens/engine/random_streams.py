"""One number in [0, 1) per row and step, from a counter-based hash: random numbers without a generator.

A completion is a function of (key, step, logits) and of nothing else: not of its batch, not of what was drawn before,
and the caller's random state is neither read nor written.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from steerlens.arguments import seed_number
from steerlens.errors import SteerlensError

# splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): increment and multipliers
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def row_keys(seed: int, prompt_ids: Sequence[Sequence[int]], n_samples: int) -> Int64[Tensor, "prompts samples"]:
    """The key of every completion's random stream: a stable 64-bit hash of (seed, the prompt's tokens, sample index).

    On the CPU. Equal prompts get equal keys, and so do one prompt's completions under different conditions: common
    random numbers, which reduce the variance of differences between conditions.
    """
    if n_samples < 0:
        raise SteerlensError(f"n_samples is {n_samples}; needs a whole number >= 0")
    seed = seed_number(seed)
    keys = torch.empty(len(prompt_ids), n_samples, dtype=torch.int64, device="cpu")
    for row, ids in enumerate(prompt_ids):
        # Seed and length end in a separator and the rest has a fixed width, so no two inputs have the same bytes.
        stem = hashlib.blake2b(f"{seed}:{len(ids)}:".encode(), digest_size=8, person=b"steerlens")
        stem.update(struct.pack(f"<{len(ids)}q", *(int(token) for token in ids)))
        for sample in range(n_samples):
            leaf = stem.copy()
            leaf.update(struct.pack("<q", sample))
            keys[row, sample] = int.from_bytes(leaf.digest(), "little", signed=True)
    return keys


def uniforms(keys: Int64[Tensor, "batch"], step: int | Int[Tensor, "batch"]) -> Float64[Tensor, "batch"]:
    """One number in [0, 1) per row, a multiple of 2**-53; on the keys' device (MPS: the CPU), the same on every device.

    step: one for all rows, or one per row. Source: splitmix64, its output function also applied to the key beforehand,
    so that neighbouring keys (0, 1, 2 …) give unrelated streams too.
    """
    if keys.device.type == "mps":
        keys, step = keys.cpu(), step if isinstance(step, int) else step.cpu()
    offset = _signed((step + 1) * _GOLDEN) if isinstance(step, int) else (step.long() + 1) * _signed(_GOLDEN)
    # Products and sums of int64 wrap around in PyTorch: the arithmetic modulo 2**64 that is wanted here.
    return _shifted(_mixed(_mixed(keys) + offset), 11).double() * 2.0**-53


def _mixed(x: Int64[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
    x = (x ^ _shifted(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shifted(x, 27)) * _signed(_MIX_2)
    return x ^ _shifted(x, 31)


def _shifted(x: Int64[Tensor, "batch"], bits: int) -> Int64[Tensor, "batch"]:
    """Logical right shift: shifting an int64 repeats the sign bit, and the mask clears it."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The number modulo 2**64, as the signed integer with the same bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
