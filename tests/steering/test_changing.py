"""Many changes at once: all of them, in the same order every time."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from steerlens.steering.changing import Changes, change_, in_rounds
from steerlens.steering.operations import Table, change

place = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5))
KINDS: list[Any] = ["add", "turn", "project", "read"]


def as_tensor(places: list[tuple[int, int, int]]) -> Tensor:
    return torch.tensor(places, dtype=torch.long).reshape(-1, 3).T


@settings(deadline=None)
@given(st.lists(place, max_size=12))
def test_every_place_gets_its_entries_in_the_order_given(places: list[tuple[int, int, int]]) -> None:
    rounds = [one.places for one in in_rounds([Changes("add", as_tensor(places))])]
    for one in rounds:
        at = [tuple(pair) for pair in one[:2].T.tolist()]
        assert len(set(at)) == len(at)
    for row in range(4):
        for column in range(5):
            here = [entry for one in rounds for r, c, entry in one.T.tolist() if (r, c) == (row, column)]
            assert here == [entry for r, c, entry in places if (r, c) == (row, column)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.lists(place, max_size=5)), max_size=4))
def test_the_result_is_that_of_one_after_the_other(changes: list[tuple[Any, list[tuple[int, int, int]]]]) -> None:
    generator = torch.Generator().manual_seed(0)
    resid = torch.randn(4, 5, 6, generator=generator)
    values, targets, reads = (torch.randn(6, width, generator=generator) for width in (6, 2, 6))
    table = Table(values, targets, reads)
    expected = resid.clone()
    for kind, places in changes:
        for row, column, entry in places:
            expected[row, column] += change(expected[row, column], table.at(entry), kind)
    change_(resid, in_rounds([Changes(kind, as_tensor(places)) for kind, places in changes]), table)
    # Repeated projections on directions that are no unit vectors grow: relative to what they have become.
    assert_close(resid, expected, rtol=1e-5, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_threads_do_not_race_for_the_order() -> None:
    generator = torch.Generator().manual_seed(0)
    resid = torch.randn(64, 8, 512, generator=generator)
    table = Table(torch.randn(3, 512, generator=generator) * 100, torch.zeros(3, 1))
    places = torch.cartesian_prod(torch.arange(64), torch.arange(8), torch.arange(3)).T
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(8):
            found.append(resid.clone())
            change_(found[-1], in_rounds([Changes("add", places)]), table)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)
