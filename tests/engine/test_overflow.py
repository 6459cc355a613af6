"""Steering that overflows the model loses its own completions, says so, and nothing else."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.engine.broken_rows import NO_TOKEN
from steerlens.engine.sampler import next_tokens, next_tokens_where_any
from steerlens.engine.sampling_settings import Sampling
from tests.conftest import KINDS, loaded
from tests.random_rows import gaussian, stream

PROMPT = "I went up to my friend and said"
HUGE = 1e7


@pytest.fixture(scope="module", params=KINDS)
def half(request: pytest.FixtureRequest):
    """The GPT-2-shaped model in float16, in every model class."""
    return loaded("gpt2", request.param, dtype="float16")


def overflowing(model) -> sl.SteeringVector:
    """A vector that is infinite in float16."""
    return HUGE * sl.actadd(model, "Love you", "Hate", layer=1)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0}, {"top_p": None}, {"stop_at_end": False}, {"stop": ["e"]}])
def test_one_overflowing_condition_leaves_the_others_as_they_are(half, sampling) -> None:
    vector = sl.actadd(half, "Love you", "Hate", layer=1)
    how = {"n": 3, "max_new_tokens": 5, "surprise": True, **sampling}
    with pytest.warns(
        RuntimeWarning, match=r"^steering overflows the model under .*1e\+07\): completions without text"
    ):
        frame = sl.generate(half, [PROMPT, "Yes we can"], [None, overflowing(half), 2 * vector], **how)
    alone = sl.generate(half, [PROMPT, "Yes we can"], [None, None, 2 * vector], **how)
    lost = frame["condition"] == 1
    columns = ["completion", "n_tokens", "finished"]
    assert frame.loc[~lost, columns].equals(alone.loc[~lost, columns])
    assert (frame.loc[lost, "completion"] == "").all() and (frame.loc[lost, "n_tokens"] == 0).all()
    assert not frame.loc[lost, "finished"].any() and frame.loc[lost, "surprise"].isna().all()


def test_a_condition_that_overflows_while_decoding_is_lost_too(half) -> None:
    vector = sl.actadd(half, "Love you", "Hate", layer=1).at(1)
    later = sl.Injection(HUGE * vector, "generated")
    for use_cache in (True, False):
        with pytest.warns(RuntimeWarning, match="overflows"):
            frame = sl.generate(half, PROMPT, [None, later], n=2, max_new_tokens=5, use_cache=use_cache)
        assert frame["n_tokens"].eq(0).tolist() == [False, False, True, True]
        assert frame["completion"].eq("").tolist() == [False, False, True, True]


def test_a_broken_unsteered_model_is_refused() -> None:
    model = loaded("gpt2", KINDS[0], dtype="float16")
    with (
        sl.steer(model, overflowing(model)),
        pytest.raises(sl.SteerlensError, match="the unsteered model's own logits"),
    ):
        sl.generate(model, PROMPT, n=2, max_new_tokens=3)


@pytest.mark.parametrize("stored", [False, True])
def test_a_sweep_has_a_row_and_a_verdict_for_what_overflows(half, tmp_path, stored) -> None:
    store = {"store": tmp_path / "runs.sqlite"} if stored else {}
    with pytest.warns(RuntimeWarning, match="overflows"):
        made = sl.sweep(
            half,
            sl.PromptPair("Love you", "Hate"),
            PROMPT,
            layers=[1],
            coeffs=[1.0, HUGE],
            metrics=[sl.metrics.words("the"), sl.metrics.repetition()],
            n=8,
            max_new_tokens=6,
            **store,
        )
    gone = made.frame["coeff"] == HUGE
    assert gone.sum() == 16  # the vector's and the random one's
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in made.metrics:
            assert made.frame[metric.column].isna().equals(gone)
            summary = made.summary[made.summary["metric"] == metric.name]
            assert summary["mean"].isna().equals(summary["coeff"] == HUGE)
            effects = made.effects(metric).set_index("coeff")
            measures = ["effect", "surprise", "success", "repetition", "ended", "fluent", "extra_surprise"]
            assert effects.loc[HUGE, measures].isna().all(axis=None)
            assert np.isfinite(effects.loc[1.0, ["effect", "success", "fluent"]].astype(float)).all(axis=None)
            verdicts = made.verdicts(metric).set_index("coeff")
            assert verdicts.loc[HUGE, "verdict"] == "overflows" and verdicts.loc[1.0, "verdict"] != "overflows"
            assert made.best(metric)["coeff"] == 1.0
            assert made.judged(metric) is not None and len(made.front(metric)) == 1
            made.plot(metric)
        page = made.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "overflows" in page and "nan" not in page.split("<table")[1].split("</table")[0].lower().replace(
        "finance", ""
    )
    if stored:
        again = sl.read_store(tmp_path / "runs.sqlite", metrics=made.metrics)
        assert again[made.metrics[0].column].isna().sum() == 16


def test_rows_without_a_distribution_get_no_token_and_the_others_theirs() -> None:
    logits, u = gaussian(4, 300), stream(4)
    sampling = Sampling(top_p=0.7, frequency_penalty=0.0)
    right = next_tokens(logits, sampling, u)
    logits[1] = torch.nan
    found = next_tokens_where_any(logits, sampling, u)
    assert found[1] == NO_TOKEN and found[[0, 2, 3]].equal(right[[0, 2, 3]])
