"""What is called an effect: differences that stand after correction, from unsteered and from random vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steerlens.measures.findings import differing
from steerlens.measures.pairing import holm
from steerlens.measures.statistics import paired_difference


def completions(shares: dict[tuple[str, int], float], *, n: int = 200, seed: int = 0) -> pd.DataFrame:
    """`n` completions per (role, layer), of which about a share has the word."""
    draw = np.random.default_rng(seed)
    parts = []
    for number, ((role, layer), share) in enumerate(shares.items()):
        hits = (draw.random(n) < share).astype(float)
        where = {"condition": number, "role": role, "layer": None if role == "unsteered" else layer, "coeff": 1.0}
        parts.append(pd.DataFrame({**where, "prompt": "p", "sample": range(n), "hit": hits}))
    return pd.concat(parts, ignore_index=True)


def test_a_real_effect_is_found_and_its_neighbours_are_not() -> None:
    frame = completions(
        {("unsteered", 0): 0.05, ("steered", 1): 0.05, ("steered", 2): 0.4, ("random", 1): 0.05} | {("random", 2): 0.05}
    )
    assert differing(frame, "hit", "share") == [2]


def test_what_a_random_vector_does_as_well_is_no_effect() -> None:
    shares = {("unsteered", 0): 0.05, ("steered", 1): 0.4, ("random", 1): 0.4}
    assert differing(completions(shares), "hit", "share") == []
    assert differing(completions(shares).query("role != 'random'"), "hit", "share") == [1]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_sixty_that_do_nothing_is_no_effect(seed: int) -> None:
    nothing = {("unsteered", 0): 0.05} | {("steered", layer): 0.05 for layer in range(60)}
    assert differing(completions(nothing, n=20, seed=seed), "hit", "share") == []


def test_it_is_holms_procedure_over_the_paired_tests() -> None:
    frame = completions({("unsteered", 0): 0.1} | {("steered", layer): 0.1 + layer / 20 for layer in range(8)}, n=60)
    wide = frame.pivot(index="sample", columns="condition", values="hit")
    corrected = holm([paired_difference(wide[number], wide[0], kind="share").p_value for number in range(1, 9)])
    expected = [number for number, p in zip(range(1, 9), corrected, strict=True) if p < 0.05]
    assert differing(frame, "hit", "share") == expected
    assert 0 < len(expected) < 8


def test_a_metric_without_values_has_no_effect() -> None:
    frame = completions({("unsteered", 0): 0.1, ("steered", 1): 0.9}).assign(hit=np.nan)
    assert differing(frame, "hit", "mean") == []
