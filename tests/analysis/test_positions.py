"""Placements and shares of dimensions: each row a single run, masks that mask what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.analysis.positions import partial_dimensions
from tests.reference import D_MODEL

PROMPTS = ["I went up to my friend and said", "The weather today is so very"]
WANTED = " wedding"


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def effectiveness(model, prompt: str, *vectors) -> float:
    """ln P(wanted) steered minus unsteered, by raw TransformerLens."""
    (token,) = model.tokenizer(WANTED, add_special_tokens=False)["input_ids"]
    tokens = model.to_tokens(prompt)
    base = model(tokens)[0, -1].double().log_softmax(-1)[token]
    with sl.steer(model, *vectors):
        return float(model(tokens)[0, -1].double().log_softmax(-1)[token] - base)


def test_each_placement_is_a_single_run(gpt2) -> None:
    vector = 5 * sl.actadd(gpt2, "Love you", "Hate", layer=1)
    placements = ["front", "mid", "back", 1]
    found = sl.position_effect(gpt2, vector, PROMPTS, WANTED, placements=placements)
    assert found.summary["choice"].unique().tolist() == ["unsteered", "front", "mid", "back", "1"]
    steered = found.frame.query("choice != 'unsteered'")
    assert len(steered) == len(placements) * len(PROMPTS)
    for row in steered.itertuples():
        placement = int(row.choice) if row.choice.isdigit() else row.choice
        expected = effectiveness(gpt2, row.prompt, sl.Injection(vector, placement))
        assert row.effectiveness == pytest.approx(expected, abs=2e-5)
    assert steered.groupby("choice")["effectiveness"].mean().nunique() == len(placements)


def test_one_row_everywhere_and_last(any_model) -> None:
    row = 4 * sl.actadd(any_model, "Love", "Hate", layer=1).at(1)
    found = sl.position_effect(any_model, row, PROMPTS[0], WANTED, placements=["all", "last"]).frame
    for placement in ("all", "last"):
        expected = effectiveness(any_model, PROMPTS[0], sl.Injection(row, placement))
        assert found.query("choice == @placement")["effectiveness"].item() == pytest.approx(expected, abs=2e-5)


def test_every_index_of_the_shortest_prompt(any_model) -> None:
    vector = sl.actadd(any_model, "Love you", "Hate", layer=1)
    shortest = min(len(any_model.to_tokens(prompt)[0]) for prompt in PROMPTS)
    found = sl.position_effect(any_model, vector, PROMPTS, WANTED, placements="every")
    assert found.settings["choices"] == [str(i) for i in range(shortest - vector.n_positions + 1)]
    long = sl.actadd(any_model, "a b c d e f g h i j k l m n o p q", "Hate", layer=1)
    with pytest.raises(sl.SteerlensError, match="no placements to try"):
        sl.position_effect(any_model, long, PROMPTS, WANTED, placements="every")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("keep", ["random", "largest", "first"])
def test_a_share_of_dimensions_is_kept_whole_and_the_rest_is_zero(any_model, share: float, keep: str) -> None:
    vector = sl.actadd(any_model, "Love you", "Hate", layer=1)
    part = partial_dimensions(vector, share, keep=keep, seed=2)
    kept = (part.values != 0).any(0)
    assert int(kept.sum()) == round(share * D_MODEL)
    assert torch.equal(part.values, vector.values * kept)
    if keep == "first":
        assert kept.tolist() == [i < round(share * D_MODEL) for i in range(D_MODEL)]
    if keep == "largest" and 0 < share < 1:
        sizes = vector.values.norm(dim=0)
        assert sizes[kept].min() >= sizes[~kept].max()
    again = partial_dimensions(vector, share, keep=keep, seed=2)
    assert torch.equal(part.values, again.values)


def test_draws_differ_and_contain_no_more_than_their_share(any_model) -> None:
    vector = sl.actadd(any_model, "Love you", "Hate", layer=1)
    masks = {tuple((partial_dimensions(vector, 0.5, seed=seed).values != 0).any(0).tolist()) for seed in range(6)}
    assert len(masks) == 6


def test_shares_of_dimensions_are_single_runs(gpt2) -> None:
    vector = 5 * sl.actadd(gpt2, "Love you", "Hate", layer=1)
    found = sl.dimension_effect(gpt2, vector, PROMPTS, WANTED, shares=[0, 0.5, 1], draws=3, seed=7)
    frame = found.frame
    assert frame.query("share == 0.5").groupby("prompt").size().tolist() == [3, 3]
    assert (frame.query("choice == '0'")["kl"] == 0).all()
    for prompt in PROMPTS:
        rows = frame.query("prompt == @prompt")
        whole = rows.query("choice == '1'")["effectiveness"].item()
        assert whole == pytest.approx(effectiveness(gpt2, prompt, vector), abs=2e-5)
        draws = [effectiveness(gpt2, prompt, partial_dimensions(vector, 0.5, seed=7 + i)) for i in range(3)]
        np.testing.assert_allclose(rows.query("choice == '0.5'")["effectiveness"], draws, atol=2e-5)
    # Draws on one prompt are averaged first: two prompts are two observations, not six.
    half = found.summary.query("choice == '0.5' and metric == 'effectiveness'").iloc[0]
    assert half["observations"] == 2
    assert half["mean"] == pytest.approx(frame.query("choice == '0.5'")["effectiveness"].mean())
    single = sl.dimension_effect(gpt2, vector, PROMPTS[0], WANTED, shares=[0.5], draws=3).summary
    assert single.query("choice == '0.5'")["observations"].unique().tolist() == [3]


def test_figures(any_model) -> None:
    vector = sl.actadd(any_model, "Love you", "Hate", layer=1)
    found = sl.position_effect(any_model, vector, PROMPTS, WANTED)
    figure = found.plot()
    assert list(figure.layout.xaxis.ticktext) == ["front", "mid", "back"]
    assert found.plot("kl").data
    with pytest.raises(sl.SteerlensError, match="no measure 'luck'"):
        found.plot("luck")


def test_bad_input_is_told(any_model) -> None:
    vector = sl.actadd(any_model, "Love you", "Hate", layer=1)
    for given, words in [
        ({"placements": []}, "no placements"),
        ({"placements": "front"}, "placements='front' is unknown"),
        ({"placements": ["side"]}, "placement 'side' is unknown"),
        ({"placements": ["all"]}, "takes a vector of 1 position"),
        ({"placements": [40]}, "use an index from"),
    ]:
        with pytest.raises(sl.SteerlensError, match=words):
            sl.position_effect(any_model, vector, PROMPTS, WANTED, **given)
    for given, words in [
        ({"shares": []}, "shares is empty"),
        ({"shares": [1.5]}, "at least 0 and at most 1, got 1.5"),
        ({"keep": "best"}, "keep='best' is unknown"),
        ({"draws": 0}, "draws must be"),
    ]:
        with pytest.raises(sl.SteerlensError, match=words):
            sl.dimension_effect(any_model, vector, PROMPTS, WANTED, **given)
    with pytest.raises(sl.SteerlensError, match="the list of prompts is empty"):
        sl.position_effect(any_model, vector, [], WANTED)


def test_half_the_dimensions_keep_part_of_the_effect_on_the_embedded_model(demo) -> None:
    vector = 4 * sl.actadd(demo, " weddings", " ", layer=3)
    prompts = ["I went up to my friend and said", "They were talking about the"]
    found = sl.dimension_effect(demo, vector, prompts, [" wedding", " marry"], shares=[0.25, 1.0], draws=4)
    means = found.summary.query("metric == 'kl'").set_index("choice")["mean"]
    assert 0 == means["unsteered"] < means["0.25"] < means["1"]
