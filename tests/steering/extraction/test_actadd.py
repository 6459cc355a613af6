"""ActAdd vectors of several pairs: the mean of those of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from tests.conftest import Case
from tests.steering.extraction.texts import close

PAIRS = [sl.PromptPair("I love it", "I hate it"), sl.PromptPair("So good", "bad"), sl.PromptPair("We won", "We lost")]


def test_several_pairs_give_the_mean_of_their_vectors(case: Case) -> None:
    pairs = [pair for pair in PAIRS if pair.padded(case.model).ids.shape[1] == PAIRS[1].padded(case.model).ids.shape[1]]
    assert len(pairs) == 2
    vectors = sl.actadd(case.model, pairs, layers="all")
    for layer, vector in vectors.items():
        singly = [sl.actadd(case.model, pair, layer=layer).values for pair in pairs]
        close(vector.values, torch.stack(singly).mean(0))
        assert torch.equal(vector.values[0], torch.zeros_like(vector.values[0]))
        assert vector.placement == "front"
    assert vectors[0].source["pairs"] == [["So good", "bad", "space"], ["We won", "We lost", "space"]]
    assert vectors[0].label == "mean of So good − bad and 1 more"


def test_one_pair_in_a_list_is_that_pair(any_model: Any) -> None:
    one, alone = sl.actadd(any_model, PAIRS[:1], layer=1), sl.actadd(any_model, PAIRS[0], layer=1)
    assert torch.equal(one.values, alone.values)
    assert (one.label, one.source) == (alone.label, alone.source)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "the list of pairs is empty"),
        ([PAIRS[0], "text"], "pair 1 must be a PromptPair, got str"),
        (PAIRS, r"pair 0 .* has 4 tokens after padding and pair 1 .* has 3, so their vectors do not line up"),
    ],
)
def test_pairs_that_have_no_mean(any_model: Any, pairs: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.actadd(any_model, pairs, layer=1)
