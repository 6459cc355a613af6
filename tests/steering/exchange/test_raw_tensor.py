"""Raw tensors as vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.steering.exchange import vector_of
from tests import reference

WIDTH = reference.D_MODEL


def test_it_steers_like_the_vector_it_was(any_model: Any) -> None:
    love = sl.actadd(any_model, "I love it", "I hate it", layer=1)
    back = vector_of(any_model, love.values.double(), layer=1)
    assert back.placement == "front"
    assert back.source["method"] == "foreign"
    plain = sl.next_token_logits(any_model, "So they went home", love)
    assert torch.equal(
        torch.as_tensor(sl.next_token_logits(any_model, "So they went home", back)), torch.as_tensor(plain)
    )
    assert vector_of(any_model, love.values[1].bfloat16(), layer=2).placement == "all"


@pytest.mark.parametrize(
    ("tensor", "layer", "words"),
    [
        ([1.0], 1, "expected a torch.Tensor, got list"),
        (torch.ones(WIDTH, dtype=torch.long), 1, "floating-point"),
        (torch.ones(WIDTH + 1), 1, "wide"),
        (torch.full((WIDTH,), float("nan")), 1, "NaN"),
        (torch.ones(WIDTH), 9, "out of range"),
    ],
)
def test_tensors_that_are_no_vector(any_model: Any, tensor: Any, layer: int, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        vector_of(any_model, tensor, layer=layer)
