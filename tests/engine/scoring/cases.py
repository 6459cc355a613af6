"""Prompts, conditions and the plain loop that scoring is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

import steerlens as sl
from steerlens.models import resid_pre_hook, stamp
from steerlens.steering.prompts import prompt_ids
from tests import reference

# 1 to 14 tokens and BOS; the first is one character
PROMPTS = (
    "I",
    "The dog",
    "I hate you because",
    "Once upon a time there was a",
    "The little girl went to the park with her mother and saw",
)
TEXTS = (" the sun", " and they were happy because it was a big day.", " cat")


def vector(model: Any, layer: int, n: int = 1, seed: int = 0, size: float = 1.0, placement: Any = "front") -> Any:
    """A vector of n random positions."""
    noise = torch.randn(n, model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return size * sl.SteeringVector(noise, layer, stamp(model), label=f"v{seed}", placement=placement)


def additions(condition: Any, length: int, total: int) -> dict[int, Tensor]:
    """What the condition adds to a prompt of `length` tokens, by layer, [total d_model]."""
    added: dict[int, Tensor] = {}
    for injection in condition.injections:
        one = injection.vector
        rows = reference.placed(one.values, injection.placement, length, total=total)
        rows = torch.nn.functional.pad(rows, (0, 0, 0, total - len(rows)))
        added[one.layer] = added.get(one.layer, 0) + rows
    return added


def plain_logits(model: Any, ids: list[int], condition: Any, prompt_length: int | None = None) -> Tensor:
    """Logits at every position, [pos d_vocab]: TransformerLens' own hooks, no padding, no mask."""
    added = additions(condition, prompt_length or len(ids), len(ids))

    def adder(values: Tensor) -> Any:
        return lambda resid, hook: resid + values.to(resid.dtype)

    hooks = [(resid_pre_hook(layer), adder(values)) for layer, values in added.items()]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        return model(torch.tensor([ids]))[0]


def assert_same(logits: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest logit: float32 rounds by that much when a batch is laid out differently."""
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)


@dataclass
class Grid:
    prompts: list[str]
    steering: list[Any]
    batch_size: int | None


@st.composite
def grids(draw: st.DrawFn, model: Any, texts: tuple[str, ...] = PROMPTS, later: bool = False) -> Grid:
    prompts = draw(st.lists(st.sampled_from(texts), min_size=1, max_size=4))
    shortest = min(len(prompt_ids(model, prompt)) for prompt in prompts)
    ranges = [one for one in reference.RANGES if one != "generated" or later]

    @st.composite
    def injection(draw: st.DrawFn) -> Any:
        placement = draw(st.sampled_from(["front", "mid", "back", *ranges, "last", 0, 1, -1, -2]))
        most = {**dict.fromkeys(ranges, 1), "last": 1, 1: shortest - 1, -1: 1}.get(
            placement, min(shortest, 2 if placement == -2 else 4)
        )
        n = draw(st.integers(1, max(most, 1)))
        size = draw(st.sampled_from([0.0, 1.0, -2.5, 4.0]))
        layer = draw(st.integers(0, model.cfg.n_layers - 1))
        return sl.Injection(vector(model, layer, n, draw(st.integers(0, 5)), size), placement)

    one = st.one_of(st.none(), st.lists(injection(), min_size=1, max_size=3).map(tuple))
    conditions = draw(st.lists(one, min_size=1, max_size=5))
    if draw(st.booleans()):
        conditions.append(conditions[0])
    # What begins alike shares rows.
    if draw(st.booleans()) and conditions[0]:
        conditions.append((*conditions[0], draw(injection())))
    return Grid(prompts, conditions, draw(st.sampled_from([None, 1, 2, 3, 5, 7])))


drawn = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
