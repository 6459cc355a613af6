"""Latent vectors: what is said under them, decoded step by step in the plain model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from tests import reference
from tests.conftest import Case
from tests.steering.extraction.texts import ids_of


def test_what_it_says_of_itself_is_so_in_the_plain_model(case: Case) -> None:
    prompt, target = "I went up to", " my friend"
    vector = sl.latent(case.model, target, prompt=prompt, layer=1, lr=0.1, steps=15)
    start, wanted = ids_of(prompt), ids_of(target)[1:]
    ids = [*start, *wanted]
    under = reference.log_probs(case.hf, ids, {1: reference.placed(vector.values, "all", len(ids))})
    plain = reference.log_probs(case.hf, ids)
    places = (torch.arange(len(start) - 1, len(ids) - 1), torch.tensor(wanted))
    assert float(under[places].sum()) == pytest.approx(vector.source["log_prob"], abs=1e-3)
    assert float(under[places].sum()) > float(plain[places].sum())
    said = reference.greedy(case.hf, start, len(wanted), lambda n: {1: reference.placed(vector.values, "all", n)})
    assert (said == wanted) == (vector.source["likeliest"] == 1.0)


def test_the_embedded_model_says_the_target(demo: Any) -> None:
    vector = sl.latent(demo, " the wedding of a cheese", prompt="Once upon a time", layer=2)
    assert vector.source["exact"]
    frame = sl.generate(demo, "Once upon a time", vector, n=1, temperature=0, max_new_tokens=12)
    assert frame["completion"][0].startswith(" the wedding of a cheese")


def test_if_it_is_not_found_that_is_said(any_model: Any) -> None:
    vector = sl.latent(any_model, " my friend and said that", prompt="I went up to", layer=1, steps=2)
    assert not vector.source["exact"]
    assert vector.source["likeliest"] < 1
    assert vector.source["log_prob"] < 0


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("", {}, "has no token that steering reaches"),
        (" a", {"prompt": ""}, "the prompt is empty"),
        (" a", {"steps": 0}, "steps must be a whole number of at least 1"),
        (" a", {"lr": True}, "lr must be a finite number above 0"),
        (" a", {"layer": 3}, "layer 3 is out of range"),
    ],
)
def test_bad_input_is_one_line(any_model: Any, target: str, options: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.latent(any_model, target, **{"prompt": "So", "layer": 1, **options})
