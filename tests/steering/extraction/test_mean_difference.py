"""Mean differences of contrast sets: which token is read, pairs and no pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from tests import reference
from tests.conftest import Case
from tests.steering.extraction.texts import CONTRAST, PAIRS, activations, close, ids_of


@pytest.mark.parametrize(
    ("token", "spans"),
    [
        ("last", (slice(-1, None), slice(-1, None))),
        ("differing", (slice(2, 3), slice(2, 3))),  # <bos> I love
        ("completion", (slice(2, None), slice(2, None))),
        (1, (slice(1, 2), slice(1, 2))),
        (-2, (slice(-2, -1), slice(-2, -1))),
        (slice(1, None), (slice(1, None), slice(1, None))),
        (slice(-3, -1), (slice(-3, -1), slice(-3, -1))),
    ],
)
def test_the_tokens_asked_for_are_read(case: Case, token: Any, spans: tuple[slice, slice]) -> None:
    vectors = sl.mean_difference(case.model, CONTRAST, layers="all", token=token, batch_size=5)
    for layer, vector in vectors.items():
        plus, minus = (
            activations(case, texts, layer, span)
            for texts, span in zip((CONTRAST.positive, CONTRAST.negative), spans, strict=True)
        )
        close(vector.values, (plus - minus).mean(0, keepdim=True))


def test_the_completion_begins_after_the_context(case: Case) -> None:
    rows = [{"question": "Who went?", "matching": "It was me", "not_matching": "It was them all"}]
    vector = sl.mean_difference(case.model, sl.ContrastSet.of(rows), layer=2, token="completion")
    start = len(ids_of("Who went?"))
    plus, minus = (
        activations(case, [f"Who went? {end}"], 2, slice(start, None)) for end in ("It was me", "It was them all")
    )
    close(vector.values, plus - minus)


def test_pairs_and_no_pairs_have_the_same_mean(any_model: Any) -> None:
    apart = sl.ContrastSet(CONTRAST.positive, CONTRAST.negative[::-1], paired=False)
    whole = sl.mean_difference(any_model, CONTRAST, layer=1)
    close(sl.mean_difference(any_model, apart, layer=1).values, whole.values)
    close(sl.mean_difference(any_model, list(CONTRAST.positive), list(CONTRAST.negative), layer=1).values, whole.values)
    assert whole.label == "mean difference (love)"
    assert whole.source["contrast"]["texts"] == [12, 12]
    assert whole.source["contrast"]["digest"] != apart.record()["digest"]


def test_hooks_that_live_on_the_model_take_part_only_if_asked(any_model: Any) -> None:
    plain = sl.mean_difference(any_model, CONTRAST, layer=2)
    # Twice the input of block 1 in positive texts only would be no constant: a random vector moves all of them.
    push = sl.SteeringVector(torch.randn(1, reference.D_MODEL), 0, plain.model, placement="all")
    with sl.steer(any_model, 5 * push):
        assert torch.equal(sl.mean_difference(any_model, CONTRAST, layer=2).values, plain.values)
        moved = sl.mean_difference(any_model, CONTRAST, layer=2, live_hooks=True)
    assert float((moved.values - plain.values).norm()) > 0.01 * plain.norm


@pytest.mark.parametrize(
    ("contrast", "options", "words"),
    [
        (CONTRAST, {"token": "first"}, "token='first' is unknown"),
        (CONTRAST, {"token": True}, "token=True is unknown"),
        (CONTRAST, {"token": 1.5}, "token=1.5 is unknown"),
        (CONTRAST, {"token": 50}, "none of which is token=50"),
        (CONTRAST, {"token": slice(3, 1)}, "none of which is token=slice"),
        (CONTRAST, {"token": slice(0, 3, 2)}, "a step of 1"),
        (CONTRAST, {"negatives": ["a"]}, "give a ContrastSet, or two lists of prompts, not both"),
        (sl.ContrastSet.of([("a b", "a b")]), {"token": "differing"}, "pair 0: no token differs"),
        (sl.ContrastSet.of([("a b c", "a b")]), {"token": "completion"}, "pair 0: no token differs in one"),
        (sl.ContrastSet(["a"], ["a b"], context=["a"]), {"token": "completion"}, "pair 0: nothing follows the context"),
        (sl.ContrastSet(["a"], ["b"], paired=False), {"token": "differing"}, "token='differing' needs pairs"),
        (["a"], {"negatives": ["b"], "token": "completion"}, "token='completion' needs pairs"),
    ],
)
def test_what_cannot_be_read_is_one_line(any_model: Any, contrast: Any, options: Any, words: str) -> None:
    options = dict(options)
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        sl.mean_difference(any_model, contrast, options.pop("negatives", None), layer=1, **options)
    assert "\n" not in str(caught.value)


def test_activations_that_are_no_numbers(any_model: Any) -> None:
    point = any_model.hook_dict["blocks.1.hook_resid_pre"]
    handle = point.register_forward_hook(lambda module, args, resid: resid * float("nan"))
    try:
        with pytest.raises(sl.SteerlensError, match="the activations at layer 1 are NaN or infinite"):
            sl.mean_difference(any_model, CONTRAST, layer=1)
    finally:
        handle.remove()


def test_pairs_of_the_texts_are_what_they_seem() -> None:
    """`love` and `hate` are one token each, and the texts of a pair differ in length: the tests above rely on it."""
    for plus, minus in PAIRS:
        a, b = ids_of(plus), ids_of(minus)
        assert a[:2] == b[:2]
        assert a[2] != b[2]
        assert len(a) > len(b)
