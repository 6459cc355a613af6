"""Law 10: only steerlens' own hooks go, whatever ends the block; live ones stay out of extraction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import steerlens as sl
from tests.conftest import hooks_removed, live_hooks
from tests.steering.laws.cases import log_probs, random_ids, random_vector


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_law_10_whatever_ends_the_block_only_steerlens_hooks_go(model: Any, error: type[BaseException] | None) -> None:
    calls: list[str] = []
    name = "blocks.1.hook_resid_pre"

    def note(text: str) -> Any:
        def hook(resid: Tensor, hook: Any) -> None:
            calls.append(text)

        return hook

    vector, ids = random_vector(model, 1, 2), random_ids(5)
    base = log_probs(model, ids)
    with hooks_removed(model):
        model.add_hook(name, note("first"))
        model.add_hook(name, note("second"), is_permanent=True)
        before = live_hooks(model)
        try:
            with sl.steer(model, vector), sl.steer(model, vector.on("back")):
                log_probs(model, ids)
                model.add_hook(name, note("third"))
                if error is not None:
                    raise error("inside")
        except BaseException as caught:
            assert type(caught) is error
        calls.clear()
        assert torch.equal(log_probs(model, ids), base), "the model is still steered"
        assert calls == ["first", "second", "third"]
        after = live_hooks(model)
        assert sum(after.values()) == sum(before.values()) + 2  # the third, in TransformerLens' list and in PyTorch's
    calls.clear()
    log_probs(model, ids)
    assert calls == []


def test_law_10_an_error_inside_the_forward_pass(model: Any) -> None:
    def fail(resid: Tensor, hook: Any) -> None:
        raise KeyboardInterrupt

    before = live_hooks(model)
    with pytest.raises(KeyboardInterrupt), sl.steer(model, random_vector(model, 0, 2)):
        model.run_with_hooks(torch.tensor([random_ids(5)]), fwd_hooks=[("blocks.1.hook_resid_pre", fail)])
    model.reset_hooks()
    assert live_hooks(model) == before
    assert "generate" not in model.__dict__


def test_law_10_live_hooks_stay_out_of_extraction_unless_asked_for(model: Any) -> None:
    clean = sl.actadd(model, "Love", "Hate", layer=2)
    clean_mean = sl.mean_difference(model, ["Love"], ["Hate it"], layer=2)
    calls: list[str] = []

    def disturb(resid: Tensor, hook: Any) -> Tensor:
        calls.append("disturb")
        # nonlinear and different for each row, so that it cannot cancel in the difference
        return resid * torch.linspace(0.5, 1.5, resid.shape[0])[:, None, None]

    model.add_hook("blocks.1.hook_resid_pre", disturb)
    try:
        assert torch.equal(sl.actadd(model, "Love", "Hate", layer=2).values, clean.values)
        assert torch.equal(sl.mean_difference(model, ["Love"], ["Hate it"], layer=2).values, clean_mean.values)
        assert calls == []
        disturbed = sl.actadd(model, "Love", "Hate", layer=2, live_hooks=True)
        assert calls
        assert (disturbed.values - clean.values).abs().max() > 0.1
        calls.clear()
        log_probs(model, random_ids(4))
        assert calls == ["disturb"], "the user's hook is alive again after extraction"
    finally:
        model.reset_hooks()


def test_law_10_an_enclosing_steer_stays_out_of_extraction_unless_asked_for(model: Any) -> None:
    clean = sl.actadd(model, "Love", "Hate", layer=2)
    strong = random_vector(model, 1, 1, scale=5).on("all")
    ids = random_ids(5)
    with sl.steer(model, strong) as receipts:
        assert torch.equal(sl.actadd(model, "Love", "Hate", layer=2).values, clean.values)
        assert receipts[0].applications == 0
        inside = sl.actadd(model, "Love", "Hate", layer=2, live_hooks=True)
        assert receipts[0].applications == 2
        steered = log_probs(model, ids)
    assert (inside.values - clean.values).abs().max() > 1e-3
    with sl.steer(model, strong):
        assert torch.equal(log_probs(model, ids), steered), "extraction left the enclosing steer intact"


def test_law_10_reset_hooks_inside_the_block_does_not_end_the_steering(model: Any) -> None:
    vector, ids = random_vector(model, 1, 2), random_ids(5)
    with sl.steer(model, vector):
        steered = log_probs(model, ids)
    with sl.steer(model, vector):
        model.reset_hooks()
        assert torch.equal(log_probs(model, ids), steered)
        with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda resid, hook: None)]):
            assert torch.equal(log_probs(model, ids), steered)
        assert torch.equal(log_probs(model, ids), steered)
