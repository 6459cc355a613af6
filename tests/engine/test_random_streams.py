"""Random numbers without a generator: as documented, as random as they should be, and blind to the batch."""

from __future__ import annotations

import math
import re

import pytest
import torch
from jaxtyping import config

from steerlens.engine.random_streams import row_keys, uniforms
from steerlens.errors import SteerlensError
from tests.random_rows import chi_square_z, stream


@pytest.mark.parametrize("seed", ["zero", 1.5, None])
def test_a_seed_is_a_whole_number(seed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: shapes in signatures are not checked, and the seed reaches the function's own message.
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    message = f"the seed must be a whole number (of at most 64 bits), got {seed!r}"
    with pytest.raises(SteerlensError, match=re.escape(message)):
        row_keys(seed, [[1, 2]], 1)  # type: ignore[arg-type]


def test_uniforms_are_splitmix64() -> None:
    whole = (1 << 64) - 1

    def mixed(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & whole
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & whole
        return x ^ (x >> 31)

    keys = [0, 1, -1, 2**63 - 1, -(2**63), *row_keys(5, [[7, 8]], 20)[0].tolist()]
    for step in (0, 1, 39, 10**6, 2**40):
        expected = [(mixed((mixed(k & whole) + (step + 1) * 0x9E3779B97F4A7C15) & whole) >> 11) / 2**53 for k in keys]
        assert uniforms(torch.tensor(keys), step).tolist() == expected
        assert uniforms(torch.tensor(keys), torch.full((len(keys),), step)).tolist() == expected


def test_uniforms_of_a_row_do_not_see_the_batch() -> None:
    keys = row_keys(0, [[1], [2, 3]], 50).flatten()
    together = uniforms(keys, 7)
    assert together.dtype == torch.float64
    assert torch.cat([uniforms(key[None], 7) for key in keys]).equal(together)
    steps = torch.arange(len(keys))
    assert uniforms(keys, steps).tolist() == [uniforms(k[None], s).item() for s, k in enumerate(keys)]


@pytest.mark.parametrize("kind", ["hashed keys", "neighbouring keys", "steps of one key", "steps of key 0"])
def test_uniforms_are_uniform_and_independent(kind: str) -> None:
    n = 100_000
    if kind == "hashed keys":
        u = stream(n, step=3)
    elif kind == "neighbouring keys":
        u = uniforms(torch.arange(n), 3)
    else:
        key = row_keys(0, [[1, 2]], 1)[0] if kind == "steps of one key" else torch.zeros(1, dtype=torch.int64)
        u = uniforms(key.expand(n), torch.arange(n))
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert u.unique().numel() == n
    cells = (u * 1000).long()
    assert abs(chi_square_z(cells.bincount(minlength=1000), torch.full((1000,), n / 1000))) < 4
    for lag in (1, 2, 3, 16, 40):  # pairs fill the square evenly; this sees more than the correlation does
        pairs = (u[:-lag] * 20).long() * 20 + (u[lag:] * 20).long()
        assert abs(chi_square_z(pairs.bincount(minlength=400), torch.full((400,), (n - lag) / 400))) < 4
    bits = (u * 2**53).long()
    ones = torch.stack([(bits >> b & 1).sum() for b in range(53)])
    assert ((ones - n / 2).abs() < 5 * math.sqrt(n) / 2).all()


def test_streams_of_many_keys_over_many_steps_are_unrelated() -> None:
    keys = row_keys(0, [[1], [1, 2], [9] * 12], 100).flatten()
    table = torch.stack([uniforms(keys, step) for step in range(60)], 1)  # [300 60]
    for rows in (table, table.T):
        correlation = torch.corrcoef(rows)
        width = rows.shape[1]
        z = correlation[~torch.eye(len(rows), dtype=torch.bool)] * math.sqrt(width)
        assert abs(z.var().item() - 1) < 0.1
        assert z.abs().max() < 6
    assert abs(chi_square_z((table.flatten() * 100).long().bincount(minlength=100), torch.full((100,), 180.0))) < 4


def test_row_keys_are_pinned() -> None:
    """A change here changes every completion of every seed: it is a break of the format, not a detail."""
    assert row_keys(0, [[50256, 40, 5465]], 2).tolist() == PINNED_KEYS
    assert uniforms(row_keys(0, [[50256, 40, 5465]], 2)[0], 0).tolist() == PINNED_UNIFORMS


PINNED_KEYS = [[-4987402910539935457, -6871996594101510912]]
PINNED_UNIFORMS = [0.029586565288754696, 0.4832693257763555]


def test_row_keys_differ_with_seed_prompt_and_sample_only() -> None:
    prompts = [[1], [2], [1, 2], [2, 1], [1, 2, 0], [0, 1, 2], [], [0], [0, 0], [12], [258]]
    seeds = [0, 1, -1, 10, 2**63 - 1, -(2**62)]
    keys = torch.stack([row_keys(seed, prompts, 50) for seed in seeds])
    assert keys.unique().numel() == len(seeds) * len(prompts) * 50
    alone = torch.cat([row_keys(0, [prompt], 3) for prompt in reversed(prompts)]).flip(0)
    assert alone.equal(keys[0, :, :3])
    assert row_keys(0, [(1, 2)], 3).equal(row_keys(0, [torch.tensor([1, 2]).tolist()], 3))
    assert row_keys(0, [], 3).shape == (0, 3)
    assert row_keys(0, [[1]], 0).shape == (1, 0)
    with pytest.raises(SteerlensError, match="n_samples is -1"):
        row_keys(0, [[1]], -1)
