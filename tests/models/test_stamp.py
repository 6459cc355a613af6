"""The stamp by which a vector knows its model: the same weights in the same basis match, anything else does not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import stamp
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, KINDS, VOCAB, Case, loaded, make_tokenizer


def load(hf: Any, kind: str, **options: Any) -> Any:
    return sl.load_model(
        hf,
        tokenizer=make_tokenizer(),
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
        **options,
    )


def test_what_it_says(case: Case) -> None:
    mark = stamp(case.model)
    assert (mark.n_layers, mark.d_model, mark.d_vocab) == (reference.N_LAYERS, reference.D_MODEL, VOCAB)
    assert mark.folded == (not case.kind.endswith("raw"))
    assert mark.centred == case.centred
    assert len(mark.sketch) == 16
    assert mark.difference(stamp(case.model)) is None


@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_the_class_does_not_matter_but_the_processing_does(architecture: str) -> None:
    """A HookedTransformer and a bridge in compatibility mode share vectors; raw weights are another basis."""
    marks = {kind: stamp(loaded(architecture, kind)) for kind in KINDS}
    for one, other in combinations(KINDS, 2):
        same = one.endswith("raw") == other.endswith("raw")
        assert (marks[one].difference(marks[other]) is None) == same, (one, other)
        if not same:
            assert "processing= setting" in str(marks[one].difference(marks[other]))


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="TransformerLens 4 has only bridges")
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_vectors_move_between_classes(architecture: str) -> None:
    ids = torch.tensor([[0, 5, 600, 70, 8]])
    for raw in ("", "-raw"):
        one, other = loaded(architecture, f"hooked{raw}"), loaded(architecture, f"bridge{raw}")
        here, there = sl.actadd(one, "Love", "Hate", layer=1), sl.actadd(other, "Love", "Hate", layer=1)
        torch.testing.assert_close(here.values, there.values, rtol=1e-5, atol=1e-4)
        with sl.steer(other, here):
            moved = other(ids).log_softmax(-1)
        with sl.steer(one, here):
            torch.testing.assert_close(moved, one(ids).log_softmax(-1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_of_the_same_shape(kind: str) -> None:
    other = load(reference.tiny_model("gpt2", vocab=VOCAB, seed=1), kind)
    assert stamp(loaded("gpt2", kind)).difference(stamp(other)) == "the weights differ"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_matches(kind: str, dtype: str) -> None:
    for architecture in ("gpt2", "llama"):
        half = stamp(loaded(architecture, kind, dtype=dtype))
        full = stamp(loaded(architecture, kind))
        assert half.difference(full) is None
        assert full.difference(half) is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_follows_the_weights(kind: str) -> None:
    """Nothing is cached: a model that was trained on is another model."""
    model = load(reference.tiny_model("gpt2", vocab=VOCAB, seed=2), kind)
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(-1.0)
    with pytest.raises(sl.SteerlensError, match="does not belong to this model"), sl.steer(model, vector):
        pass


def test_stamp_does_not_touch_the_model(case: Case) -> None:
    state = torch.get_rng_state()
    grads = [p.requires_grad for p in case.model.parameters()]
    stamp(case.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in case.model.parameters()] == grads
