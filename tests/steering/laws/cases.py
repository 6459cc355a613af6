"""The laws of steering, each held against plain hooks on the plain Hugging Face model, in every architecture and class.

The numbers are those of the design. Law 6 is tested here for `steer`; laws 6, 8 and 9 for the engine in tests/engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from tests import reference
from tests.conftest import VOCAB

PLACEMENTS: tuple[Any, ...] = ("front", "mid", "back", "last", "all", "prompt", "from_last", 0, 2, -3)
N_LAYERS, D_MODEL = reference.N_LAYERS, reference.D_MODEL

few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def close(actual: Tensor, expected: Tensor) -> None:
    """1e-5, of 1 or of the largest number in play: single precision cannot do better after sums of such numbers."""
    assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def random_ids(length: int, seed: int = 0) -> list[int]:
    """BOS and random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [0, *torch.randint(1, VOCAB - 10, (length - 1,), generator=generator).tolist()]


def random_vector(model: Any, layer: int, span: int, *, seed: int = 0, scale: float = 0.5) -> sl.SteeringVector:
    """A vector that came from nowhere, so that its values are known without steerlens."""
    values = torch.randn(span, D_MODEL, generator=torch.Generator().manual_seed(seed)) * scale
    return sl.SteeringVector(values, layer=layer, model=stamp(model))


def span_for(placement: Any, wanted: int = 3) -> int:
    return 1 if placement in (*reference.RANGES, "last") else wanted


def log_probs(model: Any, ids: Sequence[int] | Sequence[Sequence[int]], **kwargs: Any) -> Tensor:
    rows = torch.tensor(ids if isinstance(ids[0], list) else [list(ids)])
    with torch.no_grad():
        return model(rows, **kwargs).log_softmax(-1)
