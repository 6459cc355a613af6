"""Where a vector goes: names, indices, and the positions that they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlens.errors import SteerlensError
from steerlens.steering.placement import (
    NAMES,
    check_fit,
    check_placement,
    first_positions,
    is_role,
    needs_length,
    rows_at,
)
from tests.reference import placed

many = settings(max_examples=200, deadline=None, derandomize=True)
fixed = st.sampled_from(["front", "mid", "back"]) | st.integers(-12, 12)


@pytest.mark.parametrize("placement", [*NAMES, 0, 5, -1])
def test_names_and_indices(placement: Any) -> None:
    check_placement(placement)


@pytest.mark.parametrize("placement", ["FRONT", "", " front", None, True, False, 1.0, [0], np.array(1), object()])
def test_everything_else_is_refused(placement: Any) -> None:
    with pytest.raises(SteerlensError, match=f"use one of {', '.join(NAMES)}, or an index"):
        check_placement(placement)


@pytest.mark.parametrize(
    ("placement", "span", "length", "first"),
    [
        ("front", 2, 7, 0),
        ("mid", 1, 7, 3),
        ("mid", 2, 7, 2),
        ("mid", 3, 7, 2),
        ("mid", 4, 8, 2),
        ("mid", 7, 7, 0),
        ("back", 2, 7, 5),
        ("back", 7, 7, 0),
        ("last", 1, 7, 6),
        (3, 2, 7, 3),
        (-3, 2, 7, 4),
        (-1, 1, 7, 6),
    ],
)
def test_first_positions(placement: Any, span: int, length: int, first: int) -> None:
    got = first_positions(placement, span, torch.tensor([length, length + 2]))
    assert got[0] == first
    assert got.dtype == torch.int64


@many
@given(placement=fixed, span=st.integers(1, 8), length=st.integers(1, 12))
def test_what_fits_lies_inside_and_what_lies_inside_fits(placement: Any, span: int, length: int) -> None:
    first = int(first_positions(placement, span, torch.tensor([length]))[0])
    inside = first >= 0 and first + span <= length
    if inside:
        check_fit(placement, span, length)
        values = torch.arange(1.0, span + 1)[:, None]
        assert placed(values, placement, length)[first : first + span].equal(values)
    else:
        with pytest.raises(SteerlensError, match=rf"spans {span} positions.* {length} tokens.*; use"):
            check_fit(placement, span, length)


@many
@given(placement=fixed, span=st.integers(1, 4), length=st.integers(4, 12), more=st.integers(1, 20))
def test_only_placements_that_need_the_length_move_with_it(placement: Any, span: int, length: int, more: int) -> None:
    first, later = first_positions(placement, span, torch.tensor([length, length + more])).tolist()
    if not needs_length(placement):
        assert first == later
    elif placement != "mid":
        assert later == first + more


@pytest.mark.parametrize("placement", ["all", "last", "prompt", "generated", "from_last"])
def test_names_that_take_one_position(placement: Any) -> None:
    check_fit(placement, 1, 1)
    with pytest.raises(SteerlensError, match=r"vector\.at\(i\)"):
        check_fit(placement, 2, 9)


@many
@given(
    placement=st.sampled_from([name for name in NAMES if not is_role(name)]),
    length=st.integers(2, 9),
    after_bos=st.integers(0, 2),
    more=st.integers(0, 4),
)
def test_rows_at_is_what_the_words_say(placement: Any, length: int, after_bos: int, more: int) -> None:
    """Every name with one row, against the reference's own reading of the words."""
    found = rows_at(placement, 1, length=length, after_bos=after_bos, total=length + more)
    rows = placed(torch.ones(1, 1), placement, length, first=after_bos, total=length + more)
    assert set(found) == set(rows[:, 0].nonzero().flatten().tolist())
    assert set(found.values()) <= {0}
