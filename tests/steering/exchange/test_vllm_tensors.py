"""The tensors for vLLM's plugins: their layout, and hotwire's own reading of them. (vLLM itself needs a GPU.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import stamp
from tests.steering.sites.cases import D


def vector(model: Any, layer: int, span: int = 1, seed: int = 0, **fields: Any) -> sl.SteeringVector:
    values = torch.randn(span, D, generator=torch.Generator().manual_seed(seed))
    return sl.SteeringVector(values, layer, stamp(model), **{"placement": "all", **fields})


@pytest.mark.exchange
def test_hotwire_hands_these_rows_to_its_kernel(any_model: Any, tmp_path: Path) -> None:
    state = pytest.importorskip("hotwire._state")
    one, two, end = vector(any_model, 1), vector(any_model, 2, seed=1), vector(any_model, 2, seed=2, site="resid_post")
    sl.save_hotwire([2 * one, one, two, end], tmp_path / "love.pt")
    found = state.SteerState(3, D, 8, torch.device("cpu"), torch.float32, 4)
    found.load_store(str(tmp_path))
    for block, expected in ((0, 3 * one), (1, two), (2, end)):
        slot = found.slot_for("love", block, 1.5)
        assert torch.allclose(found.bank.bank[slot], expected.values[0])
        assert float(found.bank.scales[slot]) == 1.5


def test_hotwire_layout(any_model: Any, tmp_path: Path) -> None:
    one = vector(any_model, 2)
    table = torch.load(sl.save_hotwire(one, tmp_path / "v.pt"), weights_only=True)
    assert table.shape == (3, D)
    assert torch.equal(table[1], one.values[0])
    assert not table[[0, 2]].any()
    with pytest.raises(sl.SteerlensError, match=r"call it NAME\.pt"):
        sl.save_hotwire(one, tmp_path / "v.bin")
    with pytest.raises(sl.SteerlensError, match="use layer 1 or more"):
        sl.save_hotwire(vector(any_model, 0), tmp_path / "w.pt")


def applied(fields: dict[str, Any], block: int, length: int) -> torch.Tensor:
    """What vllm-lens' documentation says is added to the output of a block for a prompt of `length` tokens."""
    added = torch.zeros(length, D)
    if block in fields["layer_indices"]:
        rows = fields["activations"][fields["layer_indices"].index(block)]
        at = range(length) if rows.ndim == 1 else fields["position_indices"]
        for place, position in enumerate(at):
            added[position] += rows if rows.ndim == 1 else rows[place]
    return added


def test_vllm_lens_everywhere(any_model: Any, tmp_path: Path) -> None:
    one, two = vector(any_model, 1), vector(any_model, 1, seed=1, site="resid_post")
    fields = torch.load(sl.save_vllm_lens([one, two], tmp_path / "v.pt"), weights_only=True)
    assert fields["activations"].shape == (2, D)
    assert (fields["layer_indices"], fields["position_indices"], fields["scale"]) == ([0, 1], None, 1.0)
    assert torch.equal(applied(fields, 0, 4), one.values.expand(4, -1))
    assert torch.equal(applied(fields, 1, 4), two.values.expand(4, -1))


def test_vllm_lens_at_positions(any_model: Any, tmp_path: Path) -> None:
    love = sl.actadd(any_model, "I love it", "I hate it", layer=2)
    other = vector(any_model, 2, span=2, seed=1, placement=3)
    early = vector(any_model, 1, seed=2, placement=1)
    fields = torch.load(sl.save_vllm_lens([3 * love, other, early], tmp_path / "v.pt"), weights_only=True)
    assert fields["activations"].shape[::2] == (2, D)
    expected = torch.zeros(8, D)
    expected[: love.n_positions] += (3 * love).values
    expected[3:5] += other.values
    assert torch.equal(applied(fields, 1, 8), expected)
    assert torch.equal(applied(fields, 0, 8)[1], early.values[0])


def test_what_vllm_lens_cannot_say(any_model: Any, tmp_path: Path) -> None:
    for bad, words in (
        (vector(any_model, 1, placement="last"), "counts positions from the beginning"),
        (vector(any_model, 1, placement=-1), "counts positions from the beginning"),
        ([vector(any_model, 1), vector(any_model, 1, placement=0)], "save two files"),
        (vector(any_model, 1, site="attn_out"), "not to attn_out"),
    ):
        with pytest.raises(sl.SteerlensError, match=words):
            sl.save_vllm_lens(bad, tmp_path / "v.pt")
