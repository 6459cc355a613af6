"""Counts without a table, against a plain count."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import config

from steerlens.engine.token_counts import TokenCounts
from steerlens.errors import SteerlensError


@given(st.data())
def test_counts_equal_a_plain_count(data: st.DataObject) -> None:
    d_vocab = data.draw(st.integers(1, 6))
    token = st.integers(0, d_vocab - 1)
    rows = data.draw(st.lists(st.lists(token, max_size=5), min_size=1, max_size=4))
    width = max(map(len, rows)) + data.draw(st.integers(0, 2))
    pad = data.draw(token)
    left = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    padded = [
        [pad] * (width - len(r)) + r if side else r + [pad] * (width - len(r))
        for r, side in zip(rows, left, strict=True)
    ]
    mask = [
        [0] * (width - len(r)) + [1] * len(r) if side else [1] * len(r) + [0] * (width - len(r))
        for r, side in zip(rows, left, strict=True)
    ]
    shape = (len(rows), width)
    counts = TokenCounts.of_prompts(
        torch.tensor(padded, dtype=torch.int64).view(shape), torch.tensor(mask, dtype=torch.int64).view(shape)
    )

    def check(counts: TokenCounts, rows: list[list[int]]) -> None:
        expected = [[row.count(t) for t in range(d_vocab)] for row in rows]
        assert counts.dense(d_vocab).tolist() == expected
        # Slots of one token agree, or the result of writing them would depend on their order.
        for tokens, times, row in zip(counts.tokens.tolist(), counts.times.tolist(), expected, strict=True):
            assert times == [row[t] for t in tokens]

    check(counts, rows)
    for _ in range(data.draw(st.integers(0, 4))):
        new = data.draw(st.lists(token, min_size=len(rows), max_size=len(rows)))
        counts, rows = counts.add(torch.tensor(new)), [[*row, t] for row, t in zip(rows, new, strict=True)]
        check(counts, rows)
        keep = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
        check(counts.select(torch.tensor(keep)), [rows[i] for i in keep])
    check(counts.repeat(3), [row for row in rows for _ in range(3)])


def test_counts_without_mask_count_everything() -> None:
    counts = TokenCounts.of_prompts(torch.tensor([[5, 5, 1, 5]]))
    assert counts.dense(6).tolist() == [[0, 1, 0, 0, 0, 3]]


def test_a_mask_of_another_shape_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as users have it: the function's own message
    with pytest.raises(SteerlensError, match=r"tokens are \[2, 3\] but mask is \[2, 4\]; give one entry per token"):
        TokenCounts.of_prompts(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 4))
