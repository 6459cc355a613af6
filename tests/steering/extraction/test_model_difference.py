"""Differences of two models against the plain models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import stamp
from tests import reference
from tests.conftest import KINDS, VOCAB, loaded, make_tokenizer, plain_model
from tests.steering.extraction.texts import CONTRAST, close, ids_of

TEXTS = list(CONTRAST.positive[:5])


@pytest.fixture(scope="module", params=KINDS)
def two(request: pytest.FixtureRequest) -> Any:
    """A model, and one that was trained further: its blocks differ, its embedding hardly."""
    hf = reference.tiny_model("gpt2", vocab=VOCAB)
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if ".h." in name and weight.ndim == 2:
                weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    kind = request.param
    options = {"bridge": kind.startswith("bridge"), "processing": not kind.endswith("raw"), "device": "cpu"}
    return kind, sl.load_model(hf, tokenizer=make_tokenizer(), **options), hf, loaded("gpt2", kind)


def test_it_is_the_mean_of_the_differences(two: Any) -> None:
    kind, after, hf, before = two
    vectors = sl.model_difference(after, before, TEXTS, layers="all", batch_size=2)
    for layer, vector in vectors.items():
        each = [
            reference.block_inputs(hf, ids_of(text))[layer][-1]
            - reference.block_inputs(plain_model("gpt2"), ids_of(text))[layer][-1]
            for text in TEXTS
        ]
        wanted = torch.stack(each).mean(0)
        close(vector.values[0], wanted - (0 if kind.endswith("raw") else wanted.mean()))
    assert vectors[0].norm < 1e-5  # the embedding was not trained
    assert vectors[1].norm > 0.01


def test_it_belongs_to_the_model_asked_for(two: Any) -> None:
    _, after, _, before = two
    assert sl.model_difference(after, before, TEXTS, layer=1).model == stamp(before)
    turned = sl.model_difference(before, after, TEXTS, layer=1, owner="after")
    assert turned.model == stamp(before)
    close(turned.values, -sl.model_difference(after, before, TEXTS, layer=1).values)


def test_models_that_do_not_compare() -> None:
    model = loaded("gpt2", KINDS[0])
    with pytest.raises(sl.SteerlensError, match="the same model"):
        sl.model_difference(model, model, TEXTS, layer=1)
    other = loaded("gpt2", f"{KINDS[0]}-raw" if "raw" not in KINDS[0] else KINDS[0])
    with pytest.raises(sl.SteerlensError, match="differ in more than weights: the weight processing differs"):
        sl.model_difference(other, model, TEXTS, layer=1)
    again = loaded("gpt2", KINDS[0], "prepends")
    with pytest.raises(sl.SteerlensError, match="read text 0 as different tokens|differ in more than weights"):
        sl.model_difference(again, model, TEXTS, layer=1)
    again = loaded("llama", KINDS[0])
    for bad in ([], "text", None):
        with pytest.raises(sl.SteerlensError, match="texts must be a list|differ in more"):
            sl.model_difference(again, model, bad, layer=1)  # type: ignore[call-overload]
