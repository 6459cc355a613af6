"""Norms, ratios and cosines against run_with_cache."""

from __future__ import annotations

import numpy as np
import pytest

import steerlens as sl
from steerlens.errors import SteerlensError
from tests.reference import N_LAYERS

PAIR = sl.PromptPair("Love is all", "Hate")
PROMPTS = ["I went up to my friend and said", "Once upon"]


def test_norms_are_those_of_the_cache(model) -> None:
    found = sl.magnitudes(model, PAIR, PROMPTS).frame
    for prompt in PROMPTS:
        tokens = model.to_tokens(prompt)
        _, cache = model.run_with_cache(tokens)
        for layer in range(N_LAYERS):
            rows = found.query("series == @prompt and layer == @layer")
            expected = cache[f"blocks.{layer}.hook_resid_pre"][0].norm(dim=-1)
            np.testing.assert_allclose(rows["norm"], expected.numpy(), rtol=1e-4)
            assert rows["position"].tolist() == list(range(tokens.shape[1]))
            assert rows["token"].tolist() == [model.tokenizer.decode([i]) for i in tokens[0]]
    vectors = sl.actadd(model, PAIR, layers="all")
    for layer, vector in vectors.items():
        rows = found[(found["kind"] == "vector") & (found["layer"] == layer)]
        np.testing.assert_allclose(rows["norm"], vector.norms.numpy(), rtol=1e-4, atol=1e-6)


def test_the_ratio_is_to_the_prompts_that_reach_there(any_model) -> None:
    found = sl.magnitudes(any_model, PAIR, PROMPTS).frame
    prompts = found.query("kind == 'prompt'")
    for row in found.query("kind == 'vector'").itertuples():
        there = prompts.query("layer == @row.layer and position == @row.position")["norm"]
        assert len(there) == (2 if row.position < len(any_model.to_tokens("Once upon")[0]) else 1)
        assert row.ratio == pytest.approx(row.norm / there.mean(), rel=1e-6)
    assert prompts["ratio"].isna().all()


def test_cosines_are_of_the_flattened_values(any_model) -> None:
    other = sl.PromptPair("The house", "A dog and cat")
    found = sl.magnitudes(any_model, [PAIR, other]).cosines
    vectors = {str(p): sl.actadd(any_model, p, layers="all") for p in (PAIR, other)}
    n = 2 * N_LAYERS
    assert len(found) == n * (n + 1) // 2
    for row in found.itertuples():
        a, b = (
            vectors[s][layer].values.numpy() for s, layer in ((row.series_a, row.layer_a), (row.series_b, row.layer_b))
        )
        common = min(len(a), len(b))  # rows beyond the shorter one meet nothing
        expected = (a[:common] * b[:common]).sum() / (np.linalg.norm(a) * np.linalg.norm(b))
        assert row.cosine == pytest.approx(float(expected), abs=1e-5)
    same = found.query("series_a == series_b and layer_a == layer_b")
    np.testing.assert_allclose(same["cosine"], 1.0, atol=1e-9)


def test_vectors_may_be_given_as_they_come(any_model) -> None:
    vectors = sl.actadd(any_model, PAIR, layers="all")
    as_pair = sl.magnitudes(any_model, PAIR, PROMPTS, layers=[1, 2]).frame.query("kind == 'vector'")
    as_dict = sl.magnitudes(any_model, vectors, PROMPTS, layers=[1, 2]).frame.query("kind == 'vector'")
    np.testing.assert_allclose(as_pair["norm"], as_dict["norm"])
    np.testing.assert_allclose(as_pair["ratio"], as_dict["ratio"])
    one = sl.magnitudes(any_model, [vectors[1].at(1), 2 * vectors[1]]).frame
    assert one["series"].nunique() == 2
    assert one["ratio"].isna().all()
    zero = sl.magnitudes(any_model, [0 * vectors[1], vectors[1]]).cosines
    assert zero["cosine"].isna().tolist() == [True, True, False]


def test_figures(any_model) -> None:
    found = sl.magnitudes(any_model, PAIR, PROMPTS)
    assert found.plot().data
    assert found.plot("ratio", mark_layer=1).data
    with pytest.raises(sl.SteerlensError, match="needs a vector and a prompt"):
        sl.magnitudes(any_model, PAIR).plot("ratio")
    with pytest.raises(sl.SteerlensError, match="value='size' is unknown"):
        found.plot("size")


def test_bad_input_is_told(any_model) -> None:
    with pytest.raises(sl.SteerlensError, match="nothing to measure"):
        sl.magnitudes(any_model)
    with pytest.raises(sl.SteerlensError, match="out of range"):
        sl.magnitudes(any_model, PAIR, layers=[N_LAYERS])
    with pytest.raises(sl.SteerlensError, match="the prompt is empty"):
        sl.magnitudes(any_model, PAIR, ["ok", ""])


def test_the_cosines_are_drawn_on_both_sides_of_the_diagonal(any_model) -> None:
    found = sl.magnitudes(any_model, [PAIR, sl.PromptPair(" war", " <b>$x$</b>")])
    figure = found.plot("cosine")
    grid = np.array(figure.data[0].z, dtype=float)
    size = 2 * any_model.cfg.n_layers
    assert grid.shape == (size, size)
    np.testing.assert_array_equal(grid, grid.T)
    for row in found.cosines[found.cosines["series_a"] != found.cosines["series_b"]].itertuples():
        assert grid[row.layer_a, any_model.cfg.n_layers + row.layer_b] == row.cosine
    assert "<b>$" not in str(figure.layout.xaxis.ticktext)
    with pytest.raises(SteerlensError, match="a cosine needs vectors"):
        sl.magnitudes(any_model, [], "a prompt").plot("cosine")
