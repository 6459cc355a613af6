"""Surprise of completions: the formula in plain PyTorch, whatever steered them, batched or not."""

from __future__ import annotations

import math

import pytest
import torch

import steerlens as sl
from steerlens.engine.generation import check_job
from steerlens.engine.sampling import sample
from steerlens.engine.surprise import completion_surprise
from steerlens.steering.conditions import as_conditions

PROMPTS = ["I went up to my friend", "Yes we can"]


def by_formula(model, ids: list[int], new: list[int]) -> float:
    """−1/T Σ log p, one token at a time."""
    total = 0.0
    for place, token in enumerate(new):
        logits = model(torch.tensor([ids + new[:place]]))[0, -1]
        total -= logits.double().log_softmax(0)[token].item()
    return total / len(new)


def test_surprise_is_the_formula(any_model) -> None:
    vector = sl.actadd(any_model, "Love", "Hate", layer=1)
    conditions = as_conditions([None, 3 * vector])
    rows = [
        list(prompt.ids)
        for prompt in check_job(any_model, PROMPTS, conditions, sampling=sl.Sampling(), batch_size=None)
    ]
    done = sample(any_model, rows, conditions, sampling=sl.Sampling(n=3, max_new_tokens=4, top_p=0.9, seed=2))
    found = completion_surprise(any_model, rows, done)
    for c in range(2):
        for p, ids in enumerate(rows):
            for s in range(3):
                new = done.tokens[c, p, s, : done.lengths[c, p, s]].tolist()
                expected = by_formula(any_model, ids, new) if new else math.nan
                assert found[c, p, s].item() == pytest.approx(expected, abs=2e-5, nan_ok=True)
    one_by_one = completion_surprise(any_model, rows, done, batch_size=1)
    assert torch.allclose(found, one_by_one, atol=1e-5, equal_nan=True)


def test_generate_adds_the_column(demo) -> None:
    plain = sl.generate(demo, PROMPTS, None, n=3, max_new_tokens=6)
    measured = sl.generate(demo, PROMPTS, None, n=3, max_new_tokens=6, surprise=True)
    assert measured.drop(columns="surprise").equals(plain)
    scores = sl.score(demo, measured["completion"][0], prompt=PROMPTS[0])
    assert measured["surprise"][0] == pytest.approx(-scores["logprob"].mean(), abs=1e-4)


def test_a_strong_vector_makes_text_more_surprising(demo) -> None:
    vector = sl.actadd(demo, " weddings", " ", layer=3)
    frame = sl.generate(demo, PROMPTS[0], [None, 40 * vector], n=10, max_new_tokens=20, surprise=True)
    means = frame.groupby("condition")["surprise"].mean()
    assert means[1] > means[0] + 0.5


def test_a_completion_without_tokens_has_no_surprise(gpt2) -> None:
    conditions = as_conditions(None)
    rows = [
        list(prompt.ids) for prompt in check_job(gpt2, PROMPTS, conditions, sampling=sl.Sampling(), batch_size=None)
    ]
    done = sample(gpt2, rows, conditions, sampling=sl.Sampling(max_new_tokens=2))
    done.lengths[0, 1, 0] = 0
    found = completion_surprise(gpt2, rows, done)
    assert found.isnan().tolist() == [[[False], [True]]]
