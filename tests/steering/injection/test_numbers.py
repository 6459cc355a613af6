"""`steer` and numbers: half precision, devices, huge coefficients, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from steerlens.steering import Part
from tests.conftest import KINDS, loaded, plain_model
from tests.steering.injection.cases import D, close, expected, ids_of, log_probs, vector_on


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_residuals(kind: str, dtype: str) -> None:
    model, full = loaded("llama", kind, dtype=dtype), loaded("llama", kind)
    vector, ids = vector_on(full, 1, 2), ids_of(7)
    mask = [[1] * 7, [0, 0, 1, 1, 1, 1, 1]]
    rows = [ids, [0, 0, *ids_of(5)]]
    for placement in ("front", "back", "all"):
        one = vector.at(0) if placement == "all" else vector
        with sl.steer(model, one, placement=placement):
            half = log_probs(model, rows, mask)
        with sl.steer(full, one, placement=placement):
            whole = log_probs(full, rows, mask)
        assert half.dtype == getattr(torch, dtype)
        real = torch.tensor(mask) == 1
        base = log_probs(full, rows, mask)
        assert (half.float() - whole)[real].abs().mean() < 0.5 * (base - whole)[real].abs().mean()


def test_values_that_are_not_contiguous_or_need_gradients(any_model: Any) -> None:
    values = torch.randn(D, 4, requires_grad=True)
    for odd in (values.T[::2], values.detach().T[::2], values.detach().T[::2].double()):
        vector = sl.SteeringVector(odd, layer=1, model=stamp(any_model))
        with sl.steer(any_model, vector):
            got = log_probs(any_model, [ids_of(5)])[0]
        close(got, expected(plain_model("gpt2"), ids_of(5), vector))


def test_a_vector_on_another_device_is_moved(any_model: Any) -> None:
    """No second device here: a vector whose values claim to be elsewhere must be asked to move."""
    vector = vector_on(any_model)
    part = Part(sl.Injection(vector))
    resid = torch.zeros(1, 2, D, dtype=torch.float64)
    assert part.table_like(resid).values.dtype == torch.float64
    assert part.table_like(resid) is part.table_like(resid), "moved once"
    meta = torch.zeros(1, 2, D, device="meta")
    assert part.table_like(meta).values.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind: str) -> None:
    from tests.conftest import make_tokenizer

    model = sl.load_model(
        plain_model("gpt2"),
        tokenizer=make_tokenizer(),
        device="cuda",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    vector, ids = vector_on(model), ids_of(6)
    assert vector.values.device.type == "cpu"
    for placement in ("front", "back", "all", "last"):
        one = vector.at(0) if placement in ("all", "last") else vector
        with torch.no_grad(), sl.steer(model, one, placement=placement):
            got = model(torch.tensor([ids], device="cuda")).log_softmax(-1)[0].cpu()
        assert_close(got, expected(plain_model("gpt2"), ids, one, placement), rtol=1e-3, atol=1e-2)
    moved = sl.actadd(model, "Love", "Hate", layer=1)
    assert (moved + 2 * vector).values.device == moved.values.device


def test_huge_coefficients_stay_finite_where_the_model_does(any_model: Any) -> None:
    with sl.steer(any_model, 1e12 * vector_on(any_model)):
        assert torch.isfinite(log_probs(any_model, [ids_of(5)])).all()


def test_gradients_pass_through(gpt2: Any) -> None:
    vector, ids = vector_on(gpt2, 1, 2), torch.tensor([ids_of(5)])
    kept: list[Tensor] = []

    def watch(resid: Tensor, hook: Any) -> Tensor:
        leaf = resid.detach().requires_grad_()
        kept.append(leaf)
        return leaf

    for placement, mask in [("front", None), ("back", torch.ones_like(ids)), ("all", None)]:
        one = vector.at(0) if placement == "all" else vector
        kept.clear()
        try:
            gpt2.add_hook("blocks.1.hook_resid_pre", watch)
            with torch.enable_grad(), sl.steer(gpt2, one, placement=placement):
                logit = gpt2(ids, **({} if mask is None else {"attention_mask": mask}))[0, -1, 0]
                # (not backward(), which leaves gradients at the weights that other tests share)
                (gradient,) = torch.autograd.grad(logit, kept)
        finally:
            gpt2.reset_hooks()
        assert gradient.abs().sum() > 0


def test_inference_mode(gpt2: Any) -> None:
    with torch.inference_mode():
        vector = sl.actadd(gpt2, "Love", "Hate", layer=1)
        with sl.steer(gpt2, vector):
            inside = gpt2(torch.tensor([ids_of(5)])).clone()
    with sl.steer(gpt2, vector):
        assert torch.equal(gpt2(torch.tensor([ids_of(5)])), inside)
