"""The engine's way in: conditions that go to some rows of a batch only."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.steering import Part, injecting
from tests import reference
from tests.conftest import KINDS, Case, loaded, plain_model
from tests.steering.injection.cases import close, ids_of, log_probs, vector_on


@pytest.mark.parametrize("placement", ["front", "back", "all"])
@pytest.mark.parametrize("masked", [True, False])
def test_parts_go_to_their_rows_alone(case: Case, placement: Any, masked: bool) -> None:
    rows = [ids_of(6, seed) for seed in range(4)]
    span = 1 if placement in ("all", "last") else 2
    a, b = vector_on(case.model, 1, span, seed=1), vector_on(case.model, 1, span, seed=2)
    parts = [
        Part(sl.Injection(a, placement), torch.tensor([0, 2])),
        Part(sl.Injection(b, placement), torch.tensor([2, 3])),
    ]
    with injecting(case.model, parts) as session:
        got = log_probs(case.model, rows, [[1] * 6] * 4 if masked else None)
    at_a, at_b = (reference.placed(v.values, placement, 6) for v in (a, b))
    for row, added, result in zip(rows, [at_a, None, at_a + at_b, at_b], got, strict=True):
        close(result, reference.log_probs(case.hf, row, None if added is None else {1: added}))
    assert [r.applications for r in session.receipts] == [2, 2]


def test_a_part_on_other_rows_shares_its_receipt(any_model: Any) -> None:
    part = Part(sl.Injection(vector_on(any_model)), torch.tensor([0]))
    other = part.on_rows(torch.tensor([1]))
    with injecting(any_model, [other]):
        log_probs(any_model, [ids_of(4), ids_of(4, 1)])
    assert part.receipt is other.receipt
    assert part.receipt.applications == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_prompt_width_keeps_placements_at_the_end_of_the_prompt(kind: str) -> None:
    model, hf = loaded("gpt2", kind), plain_model("gpt2")
    vector, ids = vector_on(model, 1, 2), ids_of(9)
    with injecting(model, [Part(sl.Injection(vector, "back"))], prompt_width=6):
        got = log_probs(model, [ids])[0]
    close(got, reference.log_probs(hf, ids, {1: reference.placed(vector.values, "back", 6, total=9)}))
