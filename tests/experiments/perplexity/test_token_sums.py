"""Sums per token survive packing, and the table names what rose and fell."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.experiments.perplexity.token_sums import TokenSums
from steerlens.measures.statistics import mean_interval

VOCAB = 50


@given(st.lists(st.tuples(st.integers(0, VOCAB - 1), st.floats(-9, 9)), max_size=60))
def test_packing_is_exact(tokens):
    ids, change = np.array([i for i, _ in tokens], dtype=np.int64), np.array([x for _, x in tokens], dtype=np.float64)
    sums = TokenSums.of(ids, change, VOCAB)
    back = TokenSums.from_plain(json.loads(json.dumps(sums.plain())), VOCAB)
    for one, other in ((sums.n, back.n), (sums.total, back.total), (sums.squares, back.squares)):
        assert (one == other).all()


def test_the_table_holds_what_came_more_often_than_least(any_model):
    ids = np.array([300] * 4 + [301] * 3 + [302] * 2 + [303] * 5)
    change = np.array([1.0, 2.0, 3.0, 2.0, -1.0, -2.0, -3.0, 9.0, 9.0, 0.1, 0.2, 0.1, 0.2, 0.1])
    table = TokenSums.of(ids, change, any_model.cfg.d_vocab).table(any_model, least=2, top=2)
    assert list(table["token_id"]) == [300, 303, 301]
    assert list(table["direction"]) == ["rose", "rose", "fell"] and list(table["n"]) == [4, 5, 3]
    expected = mean_interval(change[:4])
    assert (table["change"][0], table["low"][0], table["high"][0]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert table["token"][0] == any_model.tokenizer.decode([300])
