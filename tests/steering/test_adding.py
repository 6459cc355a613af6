"""Many additions at once: the sum of all, in the same order every time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from steerlens.steering.adding import add_, in_turns

place = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5))


@settings(deadline=None)
@given(st.lists(place, max_size=12))
def test_every_place_gets_its_entries_in_the_order_given(places: list[tuple[int, int, int]]) -> None:
    turns = in_turns(torch.tensor(places, dtype=torch.long).reshape(-1, 3).T)
    for turn in turns:
        at = [tuple(pair) for pair in turn[:2].T.tolist()]
        assert len(set(at)) == len(at)
    for row in range(4):
        for column in range(5):
            here = [entry for turn in turns for r, c, entry in turn.T.tolist() if (r, c) == (row, column)]
            assert here == [entry for r, c, entry in places if (r, c) == (row, column)]


@settings(deadline=None)
@given(st.lists(place, max_size=12))
def test_the_sum_is_that_of_all(places: list[tuple[int, int, int]]) -> None:
    generator = torch.Generator().manual_seed(0)
    resid, table = torch.randn(4, 5, 3, generator=generator), torch.randn(6, 3, generator=generator)
    expected = resid.clone()
    for row, column, entry in places:
        expected[row, column] += table[entry]
    add_(resid, in_turns(torch.tensor(places, dtype=torch.long).reshape(-1, 3).T), table)
    assert_close(resid, expected, rtol=0, atol=0)


def test_threads_do_not_race_for_the_order() -> None:
    generator = torch.Generator().manual_seed(0)
    resid, table = torch.randn(64, 8, 512, generator=generator), torch.randn(3, 512, generator=generator) * 100
    places = torch.cartesian_prod(torch.arange(64), torch.arange(8), torch.arange(3)).T
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(8):
            found.append(resid.clone())
            add_(found[-1], in_turns(places), table)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)
