"""Texts for the tests of extraction, and their activations in the plain Hugging Face model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from tests import reference
from tests.conftest import Case, make_tokenizer

THINGS = ["film", "day", "book", "song", "meal", "walk", "city", "story", "house", "game", "play", "road"]
PAIRS = [(f"I love this {x} a lot", f"I hate this {x}") for x in THINGS]
CONTRAST = sl.ContrastSet.of(PAIRS, name="love")


def ids_of(text: str) -> list[int]:
    return [0, *make_tokenizer()(text, add_special_tokens=False)["input_ids"]]


@cache
def _inputs(architecture: str, text: str) -> tuple[Tensor, ...]:
    from tests.conftest import plain_model

    return tuple(reference.block_inputs(plain_model(architecture), ids_of(text)))


def activations(case: Case, texts: Sequence[str], layer: int, token: Any = slice(-1, None)) -> Tensor:
    """The mean over `token` of the input of a block for each text, [text d_model], in the basis of the case's model."""
    rows = torch.stack([_inputs(case.architecture, text)[layer][token].mean(0) for text in texts])
    return rows - rows.mean(-1, keepdim=True) if case.centred else rows


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert_close(actual, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))
