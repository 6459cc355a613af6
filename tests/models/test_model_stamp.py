"""The stamp by which a vector knows its model: the same weights in the same basis match, anything else does not."""

from __future__ import annotations

import copy
import dataclasses
import json
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steerlens as sl
from steerlens.models import ModelStamp, stamp
from steerlens.models.weight_sketch import sketch_weights
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, KINDS, VOCAB, Case, loaded, make_tokenizer, plain_model


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


def fine_tune(hf: Any, *, by: float = 0.02, only: str = "") -> Any:
    """A copy whose weights, but for the embeddings, are changed by a little of their size."""
    tuned, draws = copy.deepcopy(hf), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if weight.shape[0] != VOCAB and only in name:
                weight.add_(torch.randn(weight.shape, generator=draws) * by * weight.square().mean().sqrt())
    return tuned


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_fine_tune_with_frozen_embeddings_is_another_model(architecture: str, kind: str) -> None:
    """In every class and processing, in half precision against full too."""
    tuned = stamp(load(fine_tune(plain_model(architecture)), kind, dtype="bfloat16"))
    for other in KINDS:
        if other.endswith("raw") == kind.endswith("raw"):
            base = stamp(loaded(architecture, other))
            assert "the weights differ" in str(base.difference(tuned))
            assert "the weights differ" in str(tuned.difference(base))
    assert tuned.difference(stamp(load(fine_tune(plain_model(architecture)), kind))) is None


@pytest.mark.parametrize("kind", KINDS)
def test_one_weight_that_was_trained_a_little(kind: str) -> None:
    tuned = load(fine_tune(plain_model("llama"), by=2e-3, only="layers.1.mlp.up_proj"), kind)
    vector = sl.actadd(loaded("llama", kind), "Love", "Hate", layer=1)
    with pytest.raises(sl.SteerlensError, match="fine-tune of the same base"), sl.steer(tuned, vector):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["in place", "data", "a copy trained"])
def test_weights_changed_after_loading(kind: str, how: str) -> None:
    model = load(plain_model("llama"), kind)
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    if how == "a copy trained":
        model = copy.deepcopy(model)
        assert vector.model.difference(stamp(model)) is None, "a copy is the same model"
    weight = next(one for name, one in model.named_parameters() if "mlp" in name)
    with torch.no_grad():
        if how == "data":
            weight.data = weight.data * 1.1
        else:
            weight.mul_(1.1)
    assert "the weights differ" in str(vector.model.difference(stamp(model)))
    if how == "a copy trained":
        return  # TransformerLens' bridges do not run when copied
    other = sl.actadd(model, "Love", "Hate", layer=1)
    with sl.steer(model, other):
        model(torch.tensor([[0, 5, 6, 7]]))
    assert "the weights differ" in str(other.model.difference(stamp(loaded("llama", kind))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_moved_by_its_user_stays_what_it_is(kind: str) -> None:
    model = load(plain_model("llama"), kind)
    before = stamp(model)
    after = stamp(model.to(torch.bfloat16))
    assert after.origin == before.origin is not None
    assert before.difference(after) is None


def test_weights_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(plain_model("gpt2"), KINDS[0])
    stamp(model)
    monkeypatch.setattr("steerlens.models.weight_sketch.sketch_weights", lambda weights: pytest.fail("read again"))
    stamp(model)


@pytest.mark.parametrize("kind", KINDS)
def test_models_that_were_not_loaded_here(kind: str) -> None:
    """Nobody knows what they were made from; the weights that they run with tell."""
    model, tuned = load(plain_model("gpt2"), kind), load(fine_tune(plain_model("gpt2")), kind)
    for one in (model, tuned):
        del vars(one)["_steerlens_weights"]
    assert stamp(model).origin is None
    assert stamp(model).difference(stamp(loaded("gpt2", kind))) is None
    assert "the weights differ" in str(stamp(tuned).difference(stamp(loaded("gpt2", kind))))


def test_stamps_of_earlier_files_are_read() -> None:
    mark = stamp(loaded("gpt2", KINDS[0]))
    plain = json.loads(json.dumps(dataclasses.asdict(mark)))
    assert ModelStamp.from_record(plain) == mark
    old = {name: value for name, value in plain.items() if name not in ("weights", "origin")}
    assert ModelStamp.from_record(old).difference(mark) is None
    assert mark.difference(ModelStamp.from_record(old)) is None


@given(st.integers(2, 5000), st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_rounding_is_no_difference(size: int, dtype: torch.dtype, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    full = [(str(i), torch.randn(size, generator=draws) * 0.02) for i in range(20)]
    half = sketch_weights([(name, weight.to(dtype)) for name, weight in full])
    assert half.differs(sketch_weights(full)) is False
    moved = [(name, weight + 0.03 * weight.std() * torch.randn(size, generator=draws)) for name, weight in full]
    assert size < 200 or half.differs(sketch_weights(moved)) is True


def test_stamp_does_not_touch_the_model(case: Case) -> None:
    state = torch.get_rng_state()
    grads = [p.requires_grad for p in case.model.parameters()]
    stamp(case.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in case.model.parameters()] == grads
