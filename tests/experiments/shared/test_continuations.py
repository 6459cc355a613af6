"""Completions and what is measured of them, against plain PyTorch, by hand, and after interruptions."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import steerlens as sl
from steerlens.engine import Sampling
from steerlens.errors import SteerlensError
from steerlens.experiments.shared import continuations, method_comparison
from steerlens.experiments.shared.comparison_options import ComparisonOptions
from steerlens.experiments.shared.continuations import Measures, Runner, Way
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.method_comparison import Effect, compare_methods
from steerlens.experiments.shared.method_summary import METHODS, numbers_table, summarise, texts_table
from steerlens.experiments.shared.relevance import centre, cosines, hugging_face_embedder, model_embedder
from steerlens.measures.statistics import mcnemar, wilson_interval
from steerlens.steering import Condition, Injection, PromptPair
from steerlens.steering.prompts import prompt_ids
from tests import reference
from tests.conftest import plain_model

PROMPTS = ["The film was", "I went up to my friend and", "No one", "A day in the life of a cat"]
DECODING = Sampling(n=2, max_new_tokens=5, seed=3)


def _length_scorer(texts):
    return [min(len(text) / 40, 1.0) for text in texts]


@pytest.fixture
def ways(any_model):
    vector = 4 * sl.actadd(any_model, "Love", "Hate", layer=1)
    return [Way("unsteered"), Way("ActAdd", Condition((Injection(vector),))), Way("prompting", prefix="Love ")]


def _run(model, ways, ledger=None, *, chunk=3, prompts=PROMPTS):
    with Ledger(ledger) as kept:
        runner = Runner(model, kept, DECODING, chunk=chunk, progress=False)
        frame = runner.complete(prompts, ways)
        return runner.measure(frame, prompts, Measures(_length_scorer, model_embedder(model)))


def test_completions_are_those_of_generate(any_model, ways):
    frame = _run(any_model, ways)
    settings = {"n": 2, "max_new_tokens": 5, "seed": 3, "progress": False}
    expected = [
        *sl.generate(any_model, PROMPTS, [None, ways[1].condition], **settings)["completion"],
        *sl.generate(any_model, [f"Love {prompt}" for prompt in PROMPTS], **settings)["completion"],
    ]
    assert frame["completion"].tolist() == expected
    assert frame["prompt"].tolist() == [prompt for _ in ways for prompt in PROMPTS for _ in range(2)]
    assert frame["prompt_number"].tolist() == [number for _ in ways for number in range(4) for _ in range(2)]
    assert frame["score"].tolist() == pytest.approx(_length_scorer(expected))


def test_disfluency_is_the_perplexity_that_plain_pytorch_gives(any_model, ways):
    frame, hf = _run(any_model, ways), plain_model("gpt2")
    for row in frame.itertuples():
        before = prompt_ids(any_model, row.prompt)  # without the phrase of prompting
        logprobs = reference.log_probs(hf, [*before, *row[frame.columns.get_loc("_ids") + 1]])
        own = row[frame.columns.get_loc("_ids") + 1]
        nats = -np.mean([float(logprobs[len(before) - 1 + i, token]) for i, token in enumerate(own)])
        assert row.nats == pytest.approx(nats, abs=1e-4)
        assert row.perplexity == pytest.approx(math.exp(nats), rel=1e-4)


def test_relevance_is_the_cosine_of_centred_mean_activations(any_model, ways):
    frame, hf = _run(any_model, ways), plain_model("gpt2")
    layer = 2  # 3/4 of three layers, rounded down

    def mean(text):
        ids = prompt_ids(any_model, text)
        rows = reference.block_inputs(hf, ids)[layer][1:]
        # The model under test has had the mean over its width taken out of the residual stream.
        return (rows - rows.mean(-1, keepdim=True)).mean(0).double()

    prompts = torch.stack([mean(prompt) for prompt in PROMPTS])
    plain = frame[frame["method"] == "unsteered"]["completion"]
    middle = torch.stack([mean(text) for text in plain]).mean(0)
    for row in frame.itertuples():
        one, other = mean(row.prompt) - prompts.mean(0), mean(row.completion) - middle
        assert row.relevance == pytest.approx(float(one @ other / one.norm() / other.norm()), abs=1e-3)


def test_nothing_to_embed_is_nan_and_rows_do_not_depend_on_their_batch(any_model):
    embedder = model_embedder(any_model)
    together = embedder.embed(["a cat", "", *PROMPTS])
    assert together[1].isnan().all()
    assert torch.allclose(together[3], embedder.embed([PROMPTS[1]])[0], atol=1e-5)
    assert torch.equal(centre(torch.tensor([[1.0, 3.0], [math.nan, math.nan], [3.0, 5.0]])), torch.tensor([2.0, 4.0]))
    assert math.isnan(cosines(together[:1], together[1:2])[0])
    long = " ".join(PROMPTS * 10)  # longer than the model's context of 64
    assert embedder.embed([long]).isfinite().all()
    with pytest.raises(SteerlensError, match="cannot load the embedder 'no/such-thing'"):
        hugging_face_embedder("no/such-thing")


def test_a_completion_without_a_token_has_no_perplexity(any_model):
    rows = pd.DataFrame({"prompt": PROMPTS[:2], "_ids": [[], [5, 6]]})
    with Ledger(None) as ledger:
        nats = Runner(any_model, ledger, DECODING)._nats(rows)
    assert math.isnan(nats[0]) and math.isfinite(nats[1])


def test_an_interrupted_run_goes_on(any_model, ways, tmp_path, monkeypatch):
    real, calls = continuations.sample, []

    def counted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(continuations, "sample", counted)
    with pytest.raises(KeyboardInterrupt):
        _run(any_model, ways, tmp_path / "parts.sqlite")
    resumed = _run(any_model, ways, tmp_path / "parts.sqlite")
    assert len(calls) == 2 + 1 + 2  # chunks of 3 and 1 prompts, with and without the phrase: 4 calls, one lost
    monkeypatch.setattr(continuations, "sample", real)
    in_memory = _run(any_model, ways)  # keys of parts that are not kept stand for nothing
    pd.testing.assert_frame_equal(resumed.drop(columns="_part"), in_memory.drop(columns="_part"))
    monkeypatch.setattr(continuations, "sample", None)  # nothing is generated a third time
    pd.testing.assert_frame_equal(resumed, _run(any_model, ways, tmp_path / "parts.sqlite"))


def test_other_settings_are_other_parts(any_model, ways, tmp_path):
    with Ledger(tmp_path / "parts.sqlite") as ledger:
        first = Runner(any_model, ledger, DECODING, progress=False).complete(PROMPTS, ways[:1])
        other = Sampling(n=2, max_new_tokens=5, seed=4)
        second = Runner(any_model, ledger, other, progress=False).complete(PROMPTS, ways[:1])
    assert first["_part"].iloc[0] != second["_part"].iloc[0]
    assert first["completion"].tolist() != second["completion"].tolist()


def test_scores_are_kept_only_under_a_key(any_model, ways, tmp_path):
    class Keyed:
        key, name, calls = "v1", "keyed", 0

        def __call__(self, texts):
            type(self).calls += 1
            return [0.25] * len(texts)

    scorer = Keyed()
    with Ledger(tmp_path / "parts.sqlite") as ledger:
        runner = Runner(any_model, ledger, DECODING, progress=False)
        frame = runner.complete(PROMPTS, ways[:1])
        for _ in range(2):
            runner.measure(frame, PROMPTS, Measures(scorer, None))
        assert Keyed.calls == 1
        scorer.key = ""
        for _ in range(2):
            runner.measure(frame, PROMPTS, Measures(scorer, None))
        assert Keyed.calls == 3


FILMS = [f"{word} film" for word in "The A My Your Our His Her No".split()]


def _compare(model, *, prompts=FILMS, **changes):
    options = {"layers": (0, 1), "coeffs": (1.0, 5.0), "validation": 3, "disfluency_limit": None, "random_draws": 2}
    with Ledger(None) as ledger:
        runner = Runner(model, ledger, Sampling(max_new_tokens=4), progress=False)
        return compare_methods(
            runner,
            list(prompts),
            pair=PromptPair("Love", "Hate"),
            phrase="Love ",
            effect=Effect(lambda scores: (scores > 0.5).astype(float), "share"),
            measures=Measures(_length_scorer, model_embedder(model)),
            options=ComparisonOptions(**(options | changes)),
        )


def test_layer_and_coefficient_are_chosen_on_other_prompts(any_model, monkeypatch):
    chosen_on = []
    real = method_comparison.tuning_table
    monkeypatch.setattr(
        method_comparison, "tuning_table", lambda frame, *rest: chosen_on.append(frame.copy()) or real(frame, *rest)
    )
    found = _compare(any_model)
    held, reported = set(chosen_on[0]["prompt"]), set(found.completions["prompt"])
    assert (len(held), len(reported)) == (3, 5) == (found.n_validation, found.n_reported) and not held & reported
    best = found.tuning[found.tuning["chosen"]].iloc[0]
    steered = found.tuning[found.tuning["role"] == "steered"]
    assert len(steered) == 4 and best["effect"] == steered["effect"].max()
    assert (found.layer, found.coeff) == (best["layer"], best["coeff"])
    by_hand = chosen_on[0].groupby("way")["hit"].mean()
    assert found.tuning["effect"].tolist() == pytest.approx(by_hand.tolist())
    assert found.tuning["damage"].tolist() == pytest.approx(np.exp(chosen_on[0].groupby("way")["nats"].mean()).tolist())
    counts = found.completions.groupby("method")["prompt_number"].apply(sorted).to_dict()
    assert counts == {method: list(range(5)) for method in METHODS}


def test_what_breaks_the_text_is_not_chosen(any_model):
    free = _compare(any_model).tuning
    base = free["damage"].iloc[0]
    # A limit between the least and the most harmful condition leaves some and takes others away.
    ratios = sorted(free["damage"].iloc[1:] / base)
    limited = _compare(any_model, disfluency_limit=(ratios[1] + ratios[2]) / 2).tuning
    assert limited["allowed"].iloc[1:].sum() == 2
    assert limited.loc[limited["chosen"], "allowed"].all()
    impossible = _compare(any_model, disfluency_limit=ratios[0] / 2).tuning
    assert impossible.loc[impossible["chosen"], "damage"].iloc[0] == impossible["damage"].iloc[1:].min()


def test_with_one_condition_there_is_nothing_to_choose(any_model):
    found = _compare(any_model, layers=(1,), coeffs=(2.0,))
    assert found.tuning.empty and (found.n_validation, found.n_reported) == (0, 8)
    with pytest.raises(SteerlensError, match="leave none to choose"):
        _compare(any_model, prompts=["The film"])
    short = _compare(any_model, prompts=["x", "The film was", "My day"], layers=(1,), coeffs=(2.0,))
    assert (short.n_short, short.n_reported) == (1, 2) and "x" not in set(short.completions["prompt"])
    with pytest.raises(SteerlensError, match=r"none of the 2 prompts has the 3 tokens"):
        _compare(any_model, prompts=["x", "y"])
    with pytest.raises(SteerlensError, match="random_draws must be"):
        _compare(any_model, random_draws=0)


def test_random_vectors_have_the_norm_of_the_steering_vector(any_model, monkeypatch):
    seen = []
    real = continuations.sample
    monkeypatch.setattr(
        continuations, "sample", lambda model, ids, conditions, **rest: seen.extend(conditions)
        or real(model, ids, conditions, **rest)
    )  # fmt: skip
    _compare(any_model, layers=(1,), coeffs=(2.0,))
    vectors = [condition.injections[0].vector for condition in seen if condition.injections]
    steering, draws = vectors[0], vectors[1:]
    assert len(draws) == 2 and not torch.allclose(draws[0].values, draws[1].values)
    for draw in draws:
        assert torch.allclose(draw.norms, steering.norms, atol=1e-4) and draw.layer == steering.layer


def _frame(hits, base, samples=1):
    rows = [
        {"method": method, "layer": None, "coeff": 0.0, "prompt_number": i // samples, "sample": i % samples,
         "hit": hit, "perplexity": 5.0 + hit, "relevance": math.nan}
        for method, values in (("unsteered", base), ("ActAdd", hits))
        for i, hit in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"layer": "Int64"})


METRICS = {"success": ("hit", "share"), "disfluency": ("perplexity", "perplexity"), "relevance": ("relevance", "mean")}


def test_shares_have_wilson_intervals_and_paired_differences():
    table = summarise(_frame([1, 1, 1, 0, 1, 0, 1, 1], [0, 1, 0, 0, 1, 1, 0, 0]), METRICS)
    assert set(table["metric"]) == {"success", "disfluency"}  # what was not measured has no rows
    row = table[(table["method"] == "ActAdd") & (table["metric"] == "success")].iloc[0]
    expected = wilson_interval(6, 8)
    assert (row["mean"], row["low"], row["high"], row["n"]) == (0.75, expected.low, expected.high, 8)
    assert row["difference"] == pytest.approx(3 / 8)
    assert row["p_value"] == pytest.approx(mcnemar(4, 1))
    base = table[(table["method"] == "unsteered") & (table["metric"] == "success")].iloc[0]
    assert base["mean"] == 3 / 8 and math.isnan(base["difference"])


def test_the_table_for_people_marks_clear_differences():
    hits, base = [1] * 18 + [0] * 2, [0] * 18 + [1] * 2
    frame = _frame(hits, base).assign(direction="up")
    table = numbers_table(summarise(frame, METRICS, group="direction"), group="direction")
    assert list(table.columns) == ["direction", "method", "layer, coefficient", "success", "disfluency"]
    expected = wilson_interval(18, 20)
    assert table["success"][1] == f"90.0% ({100 * expected.low:.1f} to {100 * expected.high:.1f}) ↑"
    assert table["success"][0].startswith("10.0% (") and table["success"][0].endswith(")")
    assert table["disfluency"][1].startswith("5.9 (") and table["layer, coefficient"].tolist() == ["–", "–"]


def test_several_samples_of_a_prompt_count_as_one_prompt():
    hits, base = [1, 1, 0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0]
    table = summarise(_frame(hits, base, samples=2), METRICS)
    row = table[(table["method"] == "ActAdd") & (table["metric"] == "success")].iloc[0]
    means = np.array([1.0, 0.0, 1.0, 0.5])
    half = 3.182446305 * means.std(ddof=1) / 2  # Student-t with 3 degrees of freedom
    assert row["n"] == 4 and row["mean"] == 0.625
    assert (row["low"], row["high"]) == pytest.approx((0.625 - half, 0.625 + half))
    assert row["difference"] == pytest.approx((means - np.array([0, 0, 0.5, 0])).mean())


def test_the_table_of_texts_has_one_row_per_prompt(any_model):
    found = _compare(any_model, layers=(1,), coeffs=(2.0,))
    table = texts_table(found.completions, n=3)
    assert list(table.columns) == ["prompt", *METHODS] and len(table) == 3
    first = found.completions[(found.completions["prompt_number"] == 0) & (found.completions["method"] == "ActAdd")]
    assert table["ActAdd"].iloc[0] == first["completion"].iloc[0]


def test_prompts_and_coefficients_that_occur_twice(any_model, ways, tmp_path):
    twice = [PROMPTS[0], PROMPTS[0], PROMPTS[1]]
    for _ in range(2):  # computed, then read
        frame = _run(any_model, ways[:2], tmp_path / "parts.sqlite", chunk=1, prompts=twice)
        assert frame["score"].notna().all() and frame["nats"].notna().all()
        first, second = (frame[frame["prompt_number"] == i].drop(columns=["prompt_number", "_chunk"]) for i in (0, 1))
        pd.testing.assert_frame_equal(first.reset_index(drop=True), second.reset_index(drop=True))
    _run(any_model, ways[:2], tmp_path / "parts.sqlite", chunk=1, prompts=twice[1:])
    assert len(_compare(any_model, layers=(1,), coeffs=(2.0, 2.0)).tuning) == 0
