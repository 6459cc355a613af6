"""The settings of the next-token draw: the paper's by default, and refused where they mean nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest

from steerlens.engine.sampling_settings import Sampling
from steerlens.errors import SteerlensError


def test_defaults_are_the_papers() -> None:
    assert Sampling() == Sampling(temperature=1.0, top_k=None, top_p=0.3, frequency_penalty=1.0)
    assert not Sampling().greedy
    assert Sampling(temperature=0).greedy
    assert Sampling().needs_counts
    assert not Sampling(frequency_penalty=0).needs_counts
    assert not Sampling(temperature=0).needs_counts
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sampling().top_p = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("temperature", v) for v in (-0.1, math.inf, math.nan)],
        *[("top_k", v) for v in (0, -3, 2.5, True)],
        *[("top_p", v) for v in (0.0, -0.2, 1.01, math.nan)],
        *[("frequency_penalty", v) for v in (math.inf, -math.inf, math.nan)],
    ],
)
def test_bad_settings_are_refused_in_one_line(field: str, value: float) -> None:
    with pytest.raises(SteerlensError, match=f"^{field} is ") as caught:
        Sampling(**{field: value})
    assert "needs" in str(caught.value)
    assert "\n" not in str(caught.value)
