"""Moments taken in parts are those of the whole, and survive the ledger."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.experiments.perplexity.moments import Moments
from steerlens.measures.statistics import mean_interval

values = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=1, max_size=30)


@given(values, st.integers(1, 7))
def test_parts_add_up_to_the_whole(documents, size):
    total = np.array([[value * weight for value, weight in documents]])
    weight = np.array([[float(weight) for _, weight in documents]])
    merged = None
    for start in range(0, len(documents), size):
        part = Moments.of(total[:, start : start + size], weight[:, start : start + size])
        part = Moments.from_plain(json.loads(json.dumps(part.plain())))
        merged = part if merged is None else merged + part
    found = merged.interval((0,))
    known = [value for value, weight in documents if weight]
    expected = mean_interval(np.array(known))
    assert found.n == len(known)
    np.testing.assert_allclose(
        [found.mean, found.low, found.high], [expected.mean, expected.low, expected.high], atol=1e-6
    )
    assert merged.total[0] == pytest.approx(total.sum(), abs=1e-9) and merged.weight[0] == weight.sum()


def test_a_large_offset_costs_no_precision():
    spread = np.random.default_rng(0).normal(size=3000)
    total = (1e6 + spread)[None]
    parts = [Moments.of(part, np.ones_like(part)) for part in np.split(total, 30, axis=1)]
    merged = sum(parts[1:], parts[0])
    assert merged.m2[0] == pytest.approx(((spread - spread.mean()) ** 2).sum(), rel=1e-6)
