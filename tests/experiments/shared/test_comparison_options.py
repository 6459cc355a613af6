"""Options of a comparison: by name or by value the same, read once, shown in signatures."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from steerlens.engine import Sampling
from steerlens.errors import SteerlensError
from steerlens.experiments import sentiment, toxicity
from steerlens.experiments.shared.comparison_options import ComparisonOptions, chosen_options


def test_arguments_by_name_are_told_apart() -> None:
    arguments = {"n": 3, "coeffs": np.array([1, 2]), "seed": 5, "validation": 7}
    sampling, options = chosen_options(Sampling(max_new_tokens=9), arguments, default=Sampling(n=50))
    assert sampling == Sampling(n=3, max_new_tokens=9, seed=5)
    assert (options.coeffs, options.validation, options.layers) == ((1.0, 2.0), 7, "all")
    assert chosen_options(None, {}, default=Sampling(n=50))[0] == Sampling(n=50)


@pytest.mark.parametrize("function", [sentiment, toxicity])
def test_signatures_show_every_option(function: Any) -> None:
    shown = inspect.signature(function).parameters
    assert shown["top_p"].default == 0.3 and shown["random_draws"].default == 4
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in shown.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"coeffs": "14"}, "coeffs must be a list of numbers"),
        ({"coeffs": ()}, "coeffs is empty"),
        ({"validation": 2.5}, "validation must be a whole number"),
        ({"random_draws": 0}, "random_draws must be a whole number of at least 1, got 0"),
        ({"chunk": True}, "chunk must be"),
        ({"disfluency_limit": float("nan")}, "disfluency_limit must be a finite number above 0"),
        ({"coeff": 1.0}, "there is no option 'coeff'"),
    ],
)
def test_bad_options_are_one_clear_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SteerlensError, match=words) as caught:
        chosen_options(None, arguments, default=Sampling())
    assert "\n" not in str(caught.value)


def test_settings_are_plain_data() -> None:
    assert ComparisonOptions(layers=(1, 2), coeffs=3).settings() == {
        "layers": [1, 2],
        "coeffs": [3.0],
        "placement": "front",
        "random draws": 4,
    }
