"""Laws 1, 2 and 5: a vector is the difference of two prompts, and what follows from that."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from tests import reference
from tests.conftest import Case, make_tokenizer
from tests.steering.laws.cases import N_LAYERS, close, log_probs, random_ids


def tokens_of(text: str) -> list[int]:
    """BOS and the text's tokens, by the tokenizer alone."""
    tokenizer = make_tokenizer()
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]


# ------------------------------------------------------------------------------------------------------------- law 1


@pytest.mark.parametrize(("positive", "negative"), [(" weddings are fun", " "), ("Love", "Hate it all"), ("", "War")])
def test_law_1_values_are_the_difference_of_the_padded_prompts(case: Case, positive: str, negative: str) -> None:
    plus, minus = tokens_of(positive), tokens_of(negative)
    (space,) = tokens_of(" ")[1:]
    width = max(len(plus), len(minus))
    plus, minus = plus + [space] * (width - len(plus)), minus + [space] * (width - len(minus))
    expected = [a - b for a, b in zip(*(reference.block_inputs(case.hf, row) for row in (plus, minus)), strict=True)]
    vectors = sl.actadd(case.model, positive, negative, layers="all")
    assert list(vectors) == list(range(N_LAYERS))
    for layer, vector in vectors.items():
        wanted = expected[layer] - (expected[layer].mean(-1, keepdim=True) if case.centred else 0)
        assert vector.values.dtype == torch.float32
        assert vector.layer == layer
        close(vector.values, wanted)
        assert (vector.values[0] == 0).all(), "the BOS row must be exactly 0"
        assert vector.source["tokens"] == [plus, minus]


def test_law_1_one_layer_equals_many_from_one_pass(model: Any) -> None:
    many = sl.actadd(model, "Love", "Hate", layers=[2, 0])
    assert list(many) == [2, 0]
    for layer, vector in many.items():
        assert torch.equal(vector.values, sl.actadd(model, "Love", "Hate", layer=layer).values)


def test_law_1_a_pad_token_of_choice(case: Case) -> None:
    plus, minus = tokens_of(" weddings are fun"), tokens_of(" ")
    minus += [0] * (len(plus) - len(minus))  # 0 is <|endoftext|>: BOS, EOS and PAD at once
    h = [reference.block_inputs(case.hf, row)[1] for row in (plus, minus)]
    vector = sl.actadd(case.model, " weddings are fun", " ", layer=1, pad="<|endoftext|>")
    wanted = h[0] - h[1]
    close(vector.values, wanted - (wanted.mean(-1, keepdim=True) if case.centred else 0))


# ------------------------------------------------------------------------------------------------------------- law 2


@pytest.mark.parametrize("layer", [0, N_LAYERS - 1])
def test_law_2_coefficient_zero_equal_prompts_and_no_vectors_change_nothing(model: Any, layer: int) -> None:
    ids, mask = torch.tensor([random_ids(7)]), torch.tensor([[1] * 7])
    base = log_probs(model, ids.tolist())
    love = sl.actadd(model, "Love", "Hate", layer=layer)
    same = sl.actadd(model, "Love is all", "Love is all", layer=layer)
    assert not same.values.any()
    for vectors in ([], [0 * love], [same], [100 * same], [0 * love.at(1).on("all")], [-0.0 * love]):
        with sl.steer(model, *vectors):
            assert torch.equal(log_probs(model, ids.tolist()), base)
    masked = log_probs(model, ids.tolist(), attention_mask=mask)
    with sl.steer(model, 0 * love, 0 * love.at(1).on("last")):
        assert torch.equal(log_probs(model, ids.tolist(), attention_mask=mask), masked)


def test_law_2_swapping_the_prompts_negates(model: Any) -> None:
    there, back = sl.actadd(model, "Love", " hate it", layers="all"), sl.actadd(model, " hate it", "Love", layers="all")
    for layer in there:
        close(there[layer].values, -back[layer].values)
        assert torch.equal((-there[layer]).values, (-1 * there[layer]).values)


# ------------------------------------------------------------------------------------------------------------- law 5


@pytest.mark.parametrize("phrase", [" weddings", "I hate you because", "Ünïcode ☃ 雪"])
def test_law_5_a_prompt_of_spaces_becomes_the_phrase(case: Case, phrase: str) -> None:
    ids = tokens_of(phrase)
    (space,) = tokens_of(" ")[1:]
    vector = sl.actadd(case.model, phrase, " ", layer=0)
    with sl.steer(case.model, vector):
        steered = log_probs(case.model, [0] + [space] * (len(ids) - 1))[0]
    close(steered, log_probs(case.model, ids)[0])
    close(steered, reference.log_probs(case.hf, ids))
