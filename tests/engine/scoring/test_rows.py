"""How the rows of a grid run: those that are needed only, in batches as asked for, with the same numbers every way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import Tensor

import steerlens as sl
from steerlens.engine.growing import can_grow_by_hooks
from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.steering.conditions import as_condition
from steerlens.steering.prompts import prompt_ids
from tests import reference
from tests.conftest import KINDS, Case, loaded
from tests.engine.scoring.cases import PROMPTS, TEXTS, assert_same, plain_logits, vector


@contextmanager
def counted_rows(model: Any) -> Iterator[dict[int, list[int]]]:
    """How many rows come out of each block, call by call."""
    rows: dict[int, list[int]] = {}
    kind = type(model.blocks[0])
    forward = kind.forward
    layer_of = {id(block): layer for layer, block in enumerate(model.blocks)}

    def counted(block: Any, *args: Any, **options: Any) -> Any:
        result = forward(block, *args, **options)
        if id(block) in layer_of:
            rows.setdefault(layer_of[id(block)], []).append(len(result[0] if isinstance(result, tuple) else result))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "forward", counted)
        yield rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_costs_only_the_blocks_behind_its_injection(kind: str) -> None:
    gpt2 = loaded.__wrapped__("gpt2", kind)  # a fresh one: what others hooked onto theirs would change the way
    grid = [vector(gpt2, layer, 1, seed, size) for layer in range(3) for seed, size in ((1, 1.0), (2, 2.0))]
    sl.next_token_logits(gpt2, "I", grid)  # a bridge is tried first
    gpt2.run_with_cache(gpt2.to_tokens("I"))  # after which transformers leaves hooks of its own on the wrapped model
    with counted_rows(gpt2) as rows:
        sl.next_token_logits(gpt2, PROMPTS[4], grid)
    # Two rows more at every layer; the clean row until the last layer has taken its copy.
    assert rows == {0: [3], 1: [5], 2: [6]}
    a, b, c = vector(gpt2, 0, 1, 1), vector(gpt2, 2, 1, 2), vector(gpt2, 2, 1, 3)
    with counted_rows(gpt2) as rows:
        sl.next_token_logits(gpt2, [PROMPTS[4]], [None, (a, b), (c, a), None, a, (b, a)])
    # (a, b) and (c, a) begin as a does; equal and empty conditions are one row.
    assert rows == {0: [2], 1: [2], 2: [4]}
    with counted_rows(gpt2) as rows:
        sl.next_token_logits(gpt2, [PROMPTS[2], PROMPTS[2]], grid)
    assert rows == {0: [6], 1: [10], 2: [12]}


@pytest.mark.skipif("hooked" not in KINDS, reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_only_what_is_wanted_reaches_the_unembedding(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, heads = loaded(architecture, "hooked"), []
    forward = type(model.unembed).forward

    def counted(unembed: Any, resid: Tensor) -> Tensor:
        heads.append(resid.shape[0] * resid.shape[1])
        return forward(unembed, resid)

    monkeypatch.setattr(type(model.unembed), "forward", counted)
    conditions = [None, vector(model, 1), vector(model, 2), vector(model, 2)]
    sl.next_token_logits(model, [PROMPTS[4], PROMPTS[2]], conditions[:3])
    assert sum(heads) == 6
    heads.clear()
    frame = sl.score(model, TEXTS, conditions[:3], prompt=PROMPTS[4])
    assert sum(heads) == len(frame)


@pytest.mark.parametrize("growing", [True, False])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_every_way_of_running_gives_the_same(case: Case, growing: bool, batch_size: int | None) -> None:
    way: Any = "rows" if not growing else "walk" if case.kind.startswith("hooked") else "hooks"
    a, b = vector(case.model, 1, 2, 1), vector(case.model, 2, 1, 2, placement="last")
    conditions = [as_condition(one) for one in (b, None, (a, b), a, sl.Injection(b, "all"))]
    rows = [tuple(prompt_ids(case.model, prompt)) for prompt in PROMPTS[1:4]]
    passages = [Passage(ids, len(ids), max(len(ids) - 2, 0), len(ids)) for ids in rows]
    found = torch.full((len(conditions), len(rows), 2, case.model.cfg.d_vocab), torch.nan)
    for cells in Job.of(case.model, passages, conditions).cells(way=way, batch_size=batch_size):
        found[cells.leaf, cells.passage, cells.offset] = cells.logits
    for c, condition in enumerate(conditions):
        for p, ids in enumerate(rows):
            assert_same(found[c, p], plain_logits(case.model, list(ids), condition)[-2:])


def test_a_bridge_that_does_not_grow_runs_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", "bridge-raw")
    grid = [None, vector(model, 1), vector(model, 2)]
    expected = sl.next_token_logits(model, list(PROMPTS), grid)
    monkeypatch.setattr("steerlens.engine.growing._TRIED", WeakKeyDictionary())
    broken = RuntimeError("The size of tensor a must match the size of tensor b")
    with monkeypatch.context() as patch:
        patch.setattr("steerlens.engine.growing.grow_by_hooks", Mock(side_effect=broken))
        assert not can_grow_by_hooks(model)
    with counted_rows(model) as rows:
        assert_same(sl.next_token_logits(model, list(PROMPTS), grid), expected)
    assert {sum(calls) for calls in rows.values()} == {3 * len(PROMPTS)}


def test_batches_are_what_was_asked_for(any_model: Any) -> None:
    grid = [None, *(vector(any_model, layer, 1, layer) for layer in range(3))]
    sl.next_token_logits(any_model, "I", grid)
    for batch_size in (1, 3, 4, 100):
        with counted_rows(any_model) as rows:
            sl.next_token_logits(any_model, list(PROMPTS), grid, batch_size=batch_size)
        assert max(rows[2]) <= batch_size
        assert sum(rows[2]) == len(PROMPTS) * len(grid)


def test_a_device_out_of_memory_is_told_what_would_help(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(type(any_model.blocks[1]), "forward", full)
    v = vector(any_model, 0)
    with pytest.raises(sl.SteerlensError, match="out of memory with 4 rows of 3 tokens; give a smaller batch_size"):
        sl.next_token_logits(any_model, ["The dog"] * 2, [None, v])
    with pytest.raises(sl.SteerlensError, match="out of memory with 1 rows of 3 tokens; shorten"):
        sl.next_token_logits(any_model, "The dog", v)
