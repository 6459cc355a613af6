"""How many rows run together: the caller's number, the memory's, the device's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jaxtyping import config

import steerlens as sl
from steerlens.engine import budget as budget_module
from steerlens.engine.budget import decode_rows, most_rows, require_room, row_bytes, row_limit, slice_rows
from steerlens.errors import SteerlensError
from tests.conftest import KINDS, loaded


def model(device: str = "cpu", d_model: int = 1024, d_vocab: int = 50_000, dtype: Any = torch.float32) -> Any:
    cfg = SimpleNamespace(
        device=device,
        dtype=dtype,
        d_model=d_model,
        d_vocab=d_vocab,
        n_heads=d_model // 64,
        d_head=64,
        d_mlp=4 * d_model,
    )
    return SimpleNamespace(cfg=cfg)


def limit(one: Any, width: int, *, logits: int = 0, batch_size: int | None = None, budget: int | None = None) -> int:
    return row_limit(one, logits_per_row=logits, batch_size=batch_size, memory_budget=budget)(width)


def test_the_caller_s_number_of_rows_counts_whatever_the_memory() -> None:
    assert limit(model(), 1000, batch_size=77, budget=1) == 77
    for wrong in (0, -3, 1.5, True, "8"):
        with pytest.raises(SteerlensError, match="batch_size must be a whole number of at least 1"):
            limit(model(), 10, batch_size=wrong)  # type: ignore[arg-type]


def test_rows_share_the_budget() -> None:
    one = row_bytes(model().cfg, 100, 0)
    assert limit(model(), 100, budget=3 * one) == 3
    assert limit(model(), 100, budget=4 * one - 1) == 3
    with pytest.raises(SteerlensError, match="does not hold one row of 100 tokens"):
        limit(model(), 100, budget=one - 1)
    # Logits that are held count, and so does the precision.
    assert row_bytes(model().cfg, 100, 100) - one == 100 * 50_000 * 4
    assert row_bytes(model(dtype=torch.bfloat16).cfg, 100, 7) * 2 == row_bytes(model().cfg, 100, 7)


def test_a_cpu_runs_few_rows_and_an_accelerator_what_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit(model(), 32) == 32
    assert limit(model(d_model=64), 32) > 32
    assert limit(model(), 5000) == 1  # one row runs however long it is
    monkeypatch.setattr("steerlens.engine.budget._free_bytes", lambda model: 80 << 30)
    assert limit(model("cuda"), 32) == 2048
    monkeypatch.setattr("steerlens.engine.budget._free_bytes", lambda model: 1 << 28)
    assert 1 < limit(model("cuda"), 32) < 2048


def test_slices_shrink_with_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerlens.engine.budget._free_bytes", lambda model: 80 << 30)
    roomy = slice_rows(model("cuda"))
    monkeypatch.setattr("steerlens.engine.budget._free_bytes", lambda model: 1 << 30)
    assert 1 < slice_rows(model("cuda")) < roomy
    assert slice_rows(model(), memory_budget=1) == 1


def test_a_grid_of_logits_without_room_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerlens.engine.budget._free_bytes", lambda model: 1_000_000)
    require_room(model("cuda"), 5)
    with pytest.raises(SteerlensError, match="take 1.2 MB and cuda has about 1.0 MB free; ask reduce_next_tokens"):
        require_room(model("cuda"), 6)


def test_rows_decode_together_as_far_as_keys_values_and_logits_fit() -> None:
    model = loaded("gpt2", KINDS[0])
    assert decode_rows(model, prompt=5, new=8) == most_rows(model)
    assert decode_rows(model, prompt=5, new=8, batch_size=7, memory_budget=1) == 7
    budget = 40_000_000
    rows = decode_rows(model, prompt=5, new=8, memory_budget=budget)
    longer = decode_rows(model, prompt=5, new=80, memory_budget=budget)
    assert 1 <= longer < rows < most_rows(model)
    frames = [
        sl.generate(model, "Once upon a time", n=9, max_new_tokens=4, seed=3, memory_budget=size)
        for size in (None, 1_000_000)
    ]
    assert frames[0]["completion"].tolist() == frames[1]["completion"].tolist()
    with pytest.raises(
        SteerlensError, match=r"a memory budget of 0\.0 MB does not hold one row of .* raise memory_budget"
    ):
        sl.generate(model, "Once upon a time", memory_budget=1000)


def test_a_small_accelerator_decodes_fewer_rows_of_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    one = model(device="cuda", d_model=1600, d_vocab=50_257, dtype=torch.bfloat16)
    one.cfg.n_layers = 48
    monkeypatch.setattr(budget_module, "walkable", lambda *args, **kwargs: True)
    monkeypatch.setattr(budget_module, "_free_bytes", lambda model: 8 << 30)
    few = decode_rows(one, prompt=20, new=40)
    assert 100 < few < most_rows(one) == 2048
    # Twice two bytes for each layer, dimension and token, and what the sampler holds.
    assert few == (8 << 30) // (2 * 2 * 48 * 1600 * 40 + 6 * 4 * 50_257)


@pytest.mark.parametrize("size", ["1GB", float("nan"), float("inf"), -1, True])
def test_a_memory_budget_is_a_number_of_bytes(size: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: shapes and types in signatures are not checked, and bad ones reach the function's own message.
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    one = model()
    with pytest.raises(SteerlensError, match="memory_budget is a number of bytes"):
        decode_rows(one, prompt=2, new=2, memory_budget=size)  # type: ignore[arg-type]
    with pytest.raises(SteerlensError, match="memory_budget is a number of bytes"):
        row_limit(one, logits_per_row=0, batch_size=None, memory_budget=size)  # type: ignore[arg-type]
