"""The settings of the next-token draw: the paper's by default, and refused where they mean nothing."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import numpy as np
import pytest

import steerlens as sl
from steerlens.engine.sampling_settings import Sampling, SamplingOptions, chosen_sampling
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


def test_numbers_of_numpy_are_numbers() -> None:
    sampling = Sampling(n=np.int64(5), temperature=np.float32(0.5), top_p=None, top_k=np.int32(3), seed=np.uint8(7))
    assert sampling == Sampling(n=5, temperature=0.5, top_p=1.0, top_k=3, seed=7)
    assert {type(value) for value in dataclasses.astuple(sampling)} == {int, float, bool, tuple}


def test_options_by_name_replace_those_of_a_sampling() -> None:
    default, given = Sampling(n=100), Sampling(n=7, top_k=5)
    assert chosen_sampling(None, {}, default=default) == default
    assert chosen_sampling(None, {"seed": 3}, default=default) == Sampling(n=100, seed=3)
    assert chosen_sampling(given, {"top_k": None, "seed": 3}, default=default) == Sampling(n=7, seed=3)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (None, {"temprature": 1.0}, "no option 'temprature'; did you mean temperature"),
        (None, {"zzz": 1.0}, "the sampling options are n, max_new_tokens"),
        ({"n": 3}, {}, "sampling is a dict; give a Sampling"),
        (None, {"n": 0}, "n is 0; needs a whole number of at least 1"),
    ],
)
def test_unknown_options_are_refused_in_one_line(given: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SteerlensError, match=words) as caught:
        chosen_sampling(given, options, default=Sampling())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("function", "n"), [(sl.generate, 1), (sl.sweep, 100)])
def test_signatures_show_the_options_and_their_defaults(function: Any, n: int) -> None:
    shown = inspect.signature(function).parameters
    assert {field.name for field in dataclasses.fields(Sampling)} <= set(shown)
    assert (shown["n"].default, shown["top_p"].default) == (n, 0.3)
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in shown.values())


def test_every_option_has_a_type_for_checkers() -> None:
    assert set(SamplingOptions.__annotations__) == {field.name for field in dataclasses.fields(Sampling)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("temperature", v) for v in (-0.1, math.inf, math.nan)],
        *[("top_k", v) for v in (0, -3, 2.5, True)],
        *[("top_p", v) for v in (0.0, -0.2, 1.01, math.nan)],
        *[(name, v) for name in ("n", "max_new_tokens") for v in (0, -1, 1.5, True, None, "3", math.nan)],
        *[("seed", v) for v in (None, 1.5, "x", False)],
        *[("temperature", v) for v in ("1", None, True)],
        *[("top_p", v) for v in ("0.3", True)],
        *[("stop_at_end", v) for v in (1, None)],
        *[("frequency_penalty", v) for v in (math.inf, -math.inf, math.nan)],
    ],
)
def test_bad_settings_are_refused_in_one_line(field: str, value: float) -> None:
    with pytest.raises(SteerlensError, match=f"^{field} is ") as caught:
        Sampling(**{field: value})
    assert "needs" in str(caught.value)
    assert "\n" not in str(caught.value)
