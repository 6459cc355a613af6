"""Extraction: what `actadd` and `mean_difference` read from a model, beyond law 1 (tests/steering/laws)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from steerlens.steering.extraction.activations import resid_pre
from tests import reference
from tests.conftest import KINDS, Case, loaded, make_tokenizer

POSITIVE = ["I love this film", "good", "What a wonderful day it was", "<|endoftext|>"]
NEGATIVE = ["I hate this film so much", "bad"]


def tokens_of(text: str) -> list[int]:
    ids = make_tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids if ids[0] == 0 else [0, *ids]  # BOS stands once


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


# ------------------------------------------------------------------------------------------------------ mean difference


def test_mean_difference_is_the_difference_of_the_means_at_the_last_token(case: Case) -> None:
    def mean(texts: list[str], layer: int) -> Tensor:
        return torch.stack([reference.block_inputs(case.hf, tokens_of(t))[layer][-1] for t in texts]).mean(0)

    vectors = sl.mean_difference(case.model, POSITIVE, NEGATIVE, layers="all")
    assert list(vectors) == list(range(reference.N_LAYERS))
    for layer, vector in vectors.items():
        wanted = mean(POSITIVE, layer) - mean(NEGATIVE, layer)
        close(vector.values, (wanted - (wanted.mean() if case.centred else 0))[None])
        assert vector.placement == "all"


def test_the_batch_size_does_not_matter(any_model: Any) -> None:
    whole = sl.mean_difference(any_model, POSITIVE, NEGATIVE, layer=2)
    for size in (1, 2, 3, 100):
        close(sl.mean_difference(any_model, POSITIVE, NEGATIVE, layer=2, batch_size=size).values, whole.values)


def test_order_and_kind_of_sequence_do_not_matter(any_model: Any) -> None:
    whole = sl.mean_difference(any_model, POSITIVE, NEGATIVE, layer=2)
    close(sl.mean_difference(any_model, tuple(POSITIVE[::-1]), tuple(NEGATIVE), layer=2).values, whole.values)
    swapped = sl.mean_difference(any_model, NEGATIVE, POSITIVE, layer=2)
    close(-swapped.values, whole.values)


@pytest.mark.parametrize(
    ("positives", "negatives"), [([], ["a"]), (["a"], []), ("text", ["a"]), (["a"], None), (5, ["a"])]
)
def test_lists_that_are_none(any_model: Any, positives: Any, negatives: Any) -> None:
    with pytest.raises(sl.SteerlensError, match=r"(positives|negatives) must be a list of at least one prompt"):
        sl.mean_difference(any_model, positives, negatives, layer=0)


@pytest.mark.parametrize("bad", ["", None, 5])
def test_prompts_in_lists_that_are_none(any_model: Any, bad: Any) -> None:
    with pytest.raises(sl.SteerlensError, match=r"the prompt is empty|a prompt must be text"):
        sl.mean_difference(any_model, ["fine", bad], ["fine"], layer=0)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_batch_sizes_that_are_none(any_model: Any, size: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="batch_size must be a whole number of at least 1"):
        sl.mean_difference(any_model, ["a"], ["b"], layer=0, batch_size=size)


# --------------------------------------------------------------------------------------------------------- which layers


@pytest.mark.parametrize("layers", [[0, 2], (2, 0), range(3), np.arange(3), np.array([1]), torch.tensor([1, 2])])
def test_layers_of_all_kinds(any_model: Any, layers: Any) -> None:
    vectors = sl.actadd(any_model, "Love", "Hate", layers=layers)
    assert list(vectors) == [int(one) for one in layers]
    assert all(type(layer) is int and vector.layer == layer for layer, vector in vectors.items())


@pytest.mark.parametrize("layer", [np.int64(1), np.uint8(1), torch.tensor(1)])
def test_one_layer_of_any_kind(any_model: Any, layer: Any) -> None:
    vector = sl.actadd(any_model, "Love", "Hate", layer=layer)
    assert vector.layer == 1
    assert type(vector.layer) is int


@pytest.mark.parametrize("layer", [True, 1.0, "1", [1], np.float64(1), np.bool_(True)])
def test_layers_that_are_no_number(any_model: Any, layer: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="a layer must be a whole number"):
        sl.actadd(any_model, "Love", "Hate", layer=layer)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({}, "give either layer="),
        ({"layer": 0, "layers": [1]}, "give either layer="),
        ({"layers": []}, "layers= is empty"),
        ({"layers": "some"}, "use 'all' or a list"),
        ({"layers": [0, 1.5]}, "must be a whole number"),
        ({"layers": [0, True]}, "must be a whole number"),
        ({"layers": 1}, "use 'all' or a list"),
    ],
)
def test_choices_of_layers_that_mean_nothing(any_model: Any, choice: dict[str, Any], words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.actadd(any_model, "Love", "Hate", **choice)
    with pytest.raises(sl.SteerlensError, match=words):
        sl.mean_difference(any_model, ["Love"], ["Hate"], **choice)


# -------------------------------------------------------------------------------------------------------------- prompts


def test_a_pair_or_two_texts(any_model: Any) -> None:
    pair = sl.PromptPair("Love", "Hate it", pad=" the")
    one, other = sl.actadd(any_model, pair, layer=1), sl.actadd(any_model, "Love", "Hate it", layer=1, pad=" the")
    assert torch.equal(one.values, other.values)
    assert one.source == other.source
    with pytest.raises(sl.SteerlensError, match="not both"):
        sl.actadd(any_model, pair, "Hate", layer=1)
    with pytest.raises(sl.SteerlensError, match="negative prompt is missing"):
        sl.actadd(any_model, "Love", layer=1)


def test_what_a_vector_says_of_itself(any_model: Any) -> None:
    vector = sl.actadd(any_model, " weddings", " ", layer=1)
    assert vector.label == "weddings − ' '"
    assert vector.model == stamp(any_model)
    assert vector.coeff == 1.0
    assert vector.placement == "front"
    assert vector.source["method"] == "actadd"
    mean = sl.mean_difference(any_model, ["a", "b"], ["c"], layer=1)
    assert mean.source == {"method": "mean_difference", "token": "last", "positives": ["a", "b"], "negatives": ["c"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokenizer", ["plain", "distinct", "pad", "prepends"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_tokenizers_and_their_padding_side_do_not_matter(
    kind: str, tokenizer: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BOS, EOS and PAD may be one token or three: every token of a pair is real, padding included."""
    model, base = loaded("gpt2", kind, tokenizer), loaded("gpt2", kind)
    monkeypatch.setattr(model.tokenizer, "padding_side", side)
    bos = model.tokenizer.bos_token_id
    for pad in ("space", "<|endoftext|>"):
        got = sl.actadd(model, "Love is all you need", "Hate", layer=2, pad=pad)
        if bos == 0:
            close(got.values, sl.actadd(base, "Love is all you need", "Hate", layer=2, pad=pad).values)
        rows = torch.tensor(got.source["tokens"])
        ones = torch.ones_like(rows)
        found = resid_pre(model, rows, [2], attention_mask=ones)[2]
        close(got.values[1:], (found[0] - found[1])[1:])
        assert not got.values[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_takes_no_bos(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", kind)
    monkeypatch.setattr(model.cfg, "default_prepend_bos", False)
    vector = sl.actadd(model, "Love", "Hate", layer=0)
    plus, minus = tokens_of("Love")[1:], tokens_of("Hate")[1:]
    assert vector.source["tokens"] == [plus, minus]
    assert vector.values[0].any(), "there is no BOS row"
    empty = sl.actadd(model, "", "Hate", layer=0)
    (space,) = tokens_of(" ")[1:]
    assert empty.source["tokens"] == [[space] * len(minus), minus]
    ids = torch.tensor([tokens_of("x y z")[1:]])
    with sl.steer(model, vector.at(1), placement="all") as receipts:
        steered = model(ids)
    assert receipts[0].positions[0] == 0, "without BOS, all means all"
    assert (steered - model(ids))[0, 0].abs().max() > 1e-3


# --------------------------------------------------------------------------------------------------------------- safety


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_gives_float32_vectors(kind: str) -> None:
    half, full = loaded("llama", kind, dtype="bfloat16"), loaded("llama", kind)
    a, b = (sl.actadd(m, "Love is all", "Hate", layer=1).values for m in (half, full))
    assert a.dtype == torch.float32
    assert (a - b).norm() < 0.05 * b.norm()


def test_extraction_needs_no_gradients_and_changes_no_mode(model: Any) -> None:
    with torch.enable_grad():
        vector = sl.actadd(model, "Love", "Hate", layer=1)
        assert not vector.values.requires_grad
        assert torch.is_grad_enabled()
    with torch.inference_mode():
        inside = sl.actadd(model, "Love", "Hate", layer=1)
    assert torch.equal(inside.values, vector.values)
    (2 * inside).values.add_(0)  # an inference tensor would refuse a change outside


def test_only_what_is_asked_for_is_computed(gpt2: Any) -> None:
    """One pass, and no block after the last layer needed."""
    calls: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: calls.append(layer))
        for layer, block in enumerate(gpt2.blocks)
    ]
    try:
        sl.actadd(gpt2, "Love", "Hate", layers=[0, 1])
    finally:
        for handle in handles:
            handle.remove()
    assert len(calls) == len(set(calls))
    assert 2 not in calls
