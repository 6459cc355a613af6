"""Tokens, vectors and plain hooks for `steer` in use, beyond the laws (tests/steering/laws)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from tests import reference
from tests.conftest import VOCAB

D = reference.D_MODEL


def ids_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [0, *torch.randint(1, VOCAB - 10, (length - 1,), generator=generator).tolist()]


def vector_on(model: Any, layer: int = 1, span: int = 2, *, seed: int = 0, scale: float = 2.0) -> sl.SteeringVector:
    values = torch.randn(span, D, generator=torch.Generator().manual_seed(seed)) * scale
    return sl.SteeringVector(values, layer=layer, model=stamp(model))


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def log_probs(model: Any, rows: list[list[int]], mask: list[list[int]] | None = None) -> Tensor:
    kwargs = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        return model(torch.tensor(rows), **kwargs).log_softmax(-1)


def expected(hf: Any, ids: list[int], vector: sl.SteeringVector, placement: Any = "front") -> Tensor:
    return reference.log_probs(hf, ids, {vector.layer: reference.placed(vector.values, placement, len(ids))})
