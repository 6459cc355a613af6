"""Layer effects against a loop of single runs; intervals, controls, norms; and on the embedded model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.analysis.effectiveness import shift_of_set, token_set
from steerlens.measures.statistics import mean_interval
from steerlens.steering.random_vectors import random_like
from tests.reference import N_LAYERS

PAIR = sl.PromptPair("Love you", "Hate")
PROMPTS = ["I went up to my friend and said", "The weather today is", "Once upon a time"]
WANTED = [" wedding", " house"]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def effect(gpt2):
    return sl.layer_effect(gpt2, PAIR, PROMPTS, WANTED, coeffs=[1, -4], seed=3)


def test_each_row_is_a_single_run(gpt2, effect) -> None:
    ids = [gpt2.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WANTED]
    members = token_set(ids, gpt2.cfg.d_vocab)
    vectors = sl.actadd(gpt2, PAIR, layers="all")
    assert len(effect.frame) == (1 + 2 * 2 * N_LAYERS) * len(PROMPTS)
    for row in effect.frame.itertuples():
        tokens = gpt2.to_tokens(row.prompt)
        base = gpt2(tokens)[0, -1].double().log_softmax(-1)
        if row.role == "unsteered":
            assert (row.effectiveness, row.disruption, row.kl, row.shift) == (0, 0, 0, 0)
            assert row.prob_base == pytest.approx(float(base[ids].exp().sum()), rel=1e-4)
            continue
        vector = vectors[row.layer]
        vector = row.coeff * (random_like(vector, seed=3) if row.role == "random" else vector)
        with sl.steer(gpt2, vector):
            steered = gpt2(tokens)[0, -1].double().log_softmax(-1)
        expected = shift_of_set(steered, base, members)
        for name in ("effectiveness", "disruption", "two_way", "kl"):
            assert getattr(row, name) == pytest.approx(float(getattr(expected, name)), abs=2e-5, rel=1e-3), name
        assert row.shift == pytest.approx(float((steered - base)[ids].mean()), abs=2e-5)
        assert row.prob_steered == pytest.approx(float(steered[ids].exp().sum()), rel=1e-4)
        assert row.kl == pytest.approx(row.disruption + row.two_way, abs=1e-6, rel=1e-4)


def test_norms_are_those_of_the_stream_where_the_vector_is(gpt2) -> None:
    found = sl.layer_effect(gpt2, PAIR, PROMPTS, WANTED, coeffs=3, placement="back", control=None)
    vectors = sl.actadd(gpt2, PAIR, layers="all")
    assert found.frame.query("role == 'unsteered'")["vector_norm"].isna().all()
    for row in found.frame.query("role == 'steered'").itertuples():
        vector = 3 * vectors[row.layer]
        name = f"blocks.{row.layer}.hook_resid_pre"
        stream = gpt2.run_with_cache(gpt2.to_tokens(row.prompt))[1][name][0][-vector.n_positions :]
        moved = vector.norms > 0
        assert moved.tolist() == [False] + [True] * (vector.n_positions - 1), "BOS moves nothing and does not count"
        mine, theirs = vector.norms[moved], stream[moved].norm(dim=-1)
        assert row.vector_norm == pytest.approx(float(mine.mean()), rel=1e-5)
        assert row.resid_norm == pytest.approx(float(theirs.mean()), rel=1e-4)
        assert row.norm_ratio == pytest.approx(float((mine / theirs).mean()), rel=1e-4)


def test_the_summary_averages_prompts_with_intervals(effect) -> None:
    for (condition, metric), rows in effect.summary.groupby(["condition", "metric"]):
        values = effect.frame.loc[effect.frame["condition"] == condition, metric]
        interval = mean_interval(values.to_numpy(), nan="omit")
        np.testing.assert_allclose(
            rows[["mean", "low", "high"]].to_numpy(float)[0], [interval.mean, interval.low, interval.high]
        )
    best = effect.best()
    steered = effect.frame.query("role == 'steered'").groupby("condition")["effectiveness"].mean()
    assert best["condition"] == steered.idxmax()


def test_one_prompt_has_no_interval(any_model) -> None:
    summary = sl.layer_effect(any_model, PAIR, PROMPTS[0], WANTED, control=None).summary
    assert summary[["low", "high"]].isna().all(axis=None)
    assert summary.query("metric == 'kl'")["mean"].notna().all()


def test_vectors_may_be_given_and_layers_chosen(any_model) -> None:
    vectors = sl.actadd(any_model, PAIR, layers="all")
    given = sl.layer_effect(any_model, vectors, PROMPTS[0], WANTED, layers=[2, 0], control=None).frame
    taken = sl.layer_effect(any_model, PAIR, PROMPTS[0], WANTED, layers=[0, 2], control=None).frame
    assert given["layer"].dropna().tolist() == [0, 2]
    np.testing.assert_allclose(given["kl"], taken["kl"], atol=1e-6)
    single = sl.layer_effect(any_model, 2 * vectors[1], PROMPTS[0], WANTED, control=None).frame
    assert single["layer"].dropna().tolist() == [1]
    with pytest.raises(sl.SteerlensError, match="none of the vectors is of the layers"):
        sl.layer_effect(any_model, [vectors[1]], PROMPTS[0], WANTED, layers=[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"wanted": []}, "no words are named"),
        ({"wanted": "weddings"}, "pieces='first'"),
        ({"coeffs": []}, "coeffs is empty"),
        ({"layers": [N_LAYERS]}, "out of range"),
        ({"layers": []}, "layers= is empty"),
        ({"control": "zeros"}, "control='zeros' is unknown"),
        ({"what": []}, "give a PromptPair"),
        ({"prompts": []}, "the list of prompts is empty"),
    ],
)
def test_bad_input_is_told(any_model, given: dict, words: str) -> None:
    full = {"what": PAIR, "prompts": PROMPTS, "wanted": WANTED, **given}
    with pytest.raises(sl.SteerlensError, match=words):
        sl.layer_effect(any_model, full.pop("what"), full.pop("prompts"), full.pop("wanted"), **full)


def test_the_whole_vocabulary_is_no_set(any_model) -> None:
    with pytest.raises(sl.SteerlensError, match=r"all .* tokens of the vocabulary"):
        sl.layer_effect(any_model, PAIR, PROMPTS[0], range(any_model.cfg.d_vocab))


def test_strengths_are_solved_at_every_layer(gpt2) -> None:
    # (at layer 0 their last tokens are the same)
    vectors = sl.mean_difference(gpt2, ["I love tea"], ["I hate tea"], layers=[1, 2])
    prompts = ["I hate you because", "The dog"]
    found = sl.layer_effect(gpt2, vectors, prompts, [5], coeffs=[sl.iso_kl(0.05), 2.0], placement="all")
    at_equal_kl = found.summary.query("metric == 'kl' and role == 'steered' and strength == 'iso_kl(0.05)'")
    assert len(at_equal_kl) == len(vectors) and at_equal_kl["mean"].tolist() == pytest.approx(
        [0.05] * len(vectors), rel=0.05
    )
    random = found.frame.query("role == 'random'")
    assert random.groupby("strength")["coeff"].apply(set).to_dict() == {
        "iso_kl(0.05)": set(at_equal_kl["coeff"]),
        "coefficient 2": {2.0},
    }
    names = {trace.name for trace in found.plot().data if trace.name}
    assert any("iso_kl(0.05)" in name for name in names)


def test_figures_and_report(effect, tmp_path) -> None:
    assert effect.plot().data
    assert effect.plot("norm_ratio", mark_layer=1).data
    assert effect.plot_damage().data
    page = effect.report(tmp_path / "effect.html").read_text(encoding="utf-8")
    assert "disruption" in page
    assert " wedding" in page
    with pytest.raises(sl.SteerlensError, match="no measure 'luck'"):
        effect.plot("luck")


def test_weddings_are_steered_best_before_the_last_layer_of_the_embedded_model(demo) -> None:
    prompts = ["I went up to my friend and said", "They were talking about the", "She wanted to tell me about her"]
    wanted = [" wedding", " marry", " marriage", " bride"]
    effect = sl.layer_effect(demo, sl.PromptPair(" weddings", " "), prompts, wanted, coeffs=4)
    best = effect.best()
    assert best["mean"] > 0.5
    assert best["layer"] < demo.cfg.n_layers - 1
    means = effect.summary.query("metric == 'effectiveness'").groupby("role")["mean"].max()
    assert means["steered"] > means["random"], "a random push of that size does less"
    # Attention has to carry a vector at the front to the end: the later, the less is left to do so.
    steered = effect.summary.query("metric == 'kl' and role == 'steered'").set_index("layer")["mean"]
    assert steered[demo.cfg.n_layers - 1] < steered.max()


def test_the_random_state_is_untouched(any_model) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sl.layer_effect(any_model, PAIR, PROMPTS[0], WANTED)
    assert torch.equal(before, torch.get_rng_state())
