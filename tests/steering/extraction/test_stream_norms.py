"""How long the stream usually is, and the warning where a vector is many times as long."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.steering.extraction.stream_norms import stream_norms
from steerlens.steering.tokens import token_ids
from tests import reference
from tests.conftest import make_tokenizer, plain_model

SENTENCE = "The weather was fine that day, so they walked along the river and talked about nothing in particular."


def loaded(change: Callable[[Any], None] = lambda plain: None) -> tuple[Any, Any]:
    """A tiny Llama after a change of its weights, as a bridge and as it is."""
    plain = deepcopy(plain_model("llama"))
    change(plain)
    return sl.load_model(plain, tokenizer=make_tokenizer(), device="cpu", bridge=True, processing=False), plain


def longer(word: str, factor: float) -> Callable[[Any], None]:
    """A change that makes the embedding of a word's first token so many times as long."""

    def change(plain: Any) -> None:
        plain.model.embed_tokens.weight.data[make_tokenizer().encode(word, add_special_tokens=False)[0]] *= factor

    return change


def test_norms_are_medians_over_a_sentence_without_its_sinks() -> None:
    model, plain = loaded()
    streams = reference.block_inputs(plain, token_ids(model, SENTENCE))
    expected = torch.stack([one[2:].norm(dim=-1).median() for one in streams])
    assert_close(torch.tensor(stream_norms(model)), expected, rtol=1e-4, atol=1e-4)


def test_a_long_vector_warns_once_in_one_line() -> None:
    model, _ = loaded(longer("Love", 50.0))
    with pytest.warns(UserWarning, match=r"^the vector 'Love − Hate' is \d+\.\d times as long as the resid") as caught:
        vectors = sl.actadd(model, "Love", "Hate", layers="all")
    (warning,) = caught
    assert "\n" not in str(warning.message)
    ratios = {
        layer: one.values.norm(dim=-1).max().item() / stream_norms(model)[layer] for layer, one in vectors.items()
    }
    worst = max(ratios, key=lambda layer: ratios[layer])
    assert f"is {ratios[worst]:.1f} times" in str(warning.message)
    assert f"at layer {worst} " in str(warning.message)


def test_ordinary_vectors_do_not() -> None:
    long, _ = loaded(longer("Love", 50.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sl.actadd(loaded()[0], "Love", "Hate", layers="all")
        sl.actadd(long, " weddings", " ", layers="all")
        sl.actadd(sl.load_model("demo", device="cpu"), " weddings", " ", layers="all")


def test_they_are_kept_as_long_as_the_model_and_see_no_hooks() -> None:
    model, _ = loaded()
    passes: list[int] = []
    model.add_hook("blocks.0.hook_resid_pre", lambda value, hook: passes.append(value.shape[1]))
    first = stream_norms(model)
    assert stream_norms(model) is first
    assert passes == [], "hooks that are on the model take no part"
    seen = weakref.ref(model)
    model.reset_hooks()
    del model
    gc.collect()
    assert seen() is None


def test_a_context_too_short_for_a_sentence() -> None:
    model, _ = loaded()
    model.cfg.n_ctx = 2
    assert all(norm != norm for norm in stream_norms(model))
    model.cfg.n_ctx = 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sl.actadd(model, "Love", "Hate", layer=1)
