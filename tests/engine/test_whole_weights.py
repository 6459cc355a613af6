"""Weights as whole numbers: exact sums, and the same to the last bit in every batch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.token_counts import TokenCounts
from steerlens.engine.whole_weights import largest_weight, point, point_of, weighed_rows
from tests.random_rows import gaussian


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def weights_of(logits: Tensor, counts: TokenCounts | None = None) -> Tensor:
    sampling = Sampling() if counts is not None else Sampling(frequency_penalty=0.0)
    groups = weighed_rows(logits, sampling, counts)
    return torch.cat([group.weights[:, : logits.shape[1]].clone() for group in groups])


@pytest.mark.parametrize("d_vocab", [1, 3, 17, 64, 255, 1000, 8191, 50257])
def test_weights_of_a_row_do_not_see_its_batch(d_vocab: int, threads: None) -> None:
    """To the last bit, not only in the token that comes of it."""
    batch = 37 if d_vocab < 10_000 else 11
    logits = gaussian(batch, d_vocab, scale=2.0)
    counts = TokenCounts.of_prompts(torch.randint(0, d_vocab, (batch, 7), generator=torch.Generator().manual_seed(3)))
    expected = weights_of(logits, counts)
    generator = torch.Generator().manual_seed(4)
    for size in (1, 2, 3, 8, batch):
        rows = torch.randperm(batch, generator=generator)[:size]
        assert weights_of(logits[rows], counts.select(rows)).equal(expected[rows])
    # neither its place in memory
    strided = torch.zeros(batch, 3, d_vocab + 5)
    strided[:, 1, 2:-3] = logits
    assert weights_of(strided[:, 1, 2:-3], counts).equal(expected)
    for n in (2, 3):
        torch.set_num_threads(n)
        assert weights_of(logits, counts).equal(expected)


@pytest.mark.parametrize("d_vocab", [1, 2, 3, 1000, 65_536, 65_537])
def test_sums_are_exact_and_padding_weighs_nothing(d_vocab: int) -> None:
    logits = torch.zeros(3, d_vocab)
    logits[1, 1:] = -math.inf
    logits[2] = gaussian(1, d_vocab)[0]
    for group in weighed_rows(logits, Sampling(frequency_penalty=0.0), None):
        for row, weights in zip(range(3)[group.rows], group.weights, strict=True):
            assert weights.max() == largest_weight(d_vocab)
            assert weights.sum().item() == sum(weights.tolist()) <= 2**62
            assert not weights[d_vocab:].any()
            if row == 0:
                assert weights.sum().item() == d_vocab * largest_weight(d_vocab)
            if row == 1:
                assert weights.sum().item() == largest_weight(d_vocab)


@given(st.integers(1, 2**62), st.one_of(st.floats(0, 1), st.just(1 - 2.0**-53)))
def test_a_point_lies_before_the_end_and_is_one_on_host_and_device(total: int, fraction: float) -> None:
    found = point_of(total, fraction)
    assert 0 <= found < total
    assert point(torch.tensor([total]), fraction).item() == found
    assert point(torch.tensor([total]), torch.tensor([fraction], dtype=torch.float64)).item() == found
    assert found == pytest.approx(total * fraction, rel=1e-15, abs=1)
