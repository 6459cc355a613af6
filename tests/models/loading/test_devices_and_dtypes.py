"""Devices, dtypes and classes that a model is asked for on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import is_bridge, load_model, stamp
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, KINDS, loaded, make_tokenizer, plain_model
from tests.models.loading.cases import IDS, load


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "", "cuda:x", 17.5])
def test_a_device_that_is_not_there(device: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="device"):
        load_model("demo", device=device)


@pytest.mark.parametrize("dtype", ["float64", torch.float64, torch.int8, "bf16", None, 3])
def test_a_dtype_that_is_not_supported(dtype: Any) -> None:
    with pytest.raises(sl.SteerlensError, match=r"dtype .* is not supported; use one of float32, bfloat16, float16"):
        load_model("demo", dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_half_precision(kind: str, dtype: Any) -> None:
    model = load(plain_model("llama"), kind, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.cfg.dtype == torch.bfloat16
    got = model(torch.tensor([IDS])).float().log_softmax(-1)[0]
    assert (got - reference.log_probs(plain_model("llama"), IDS)).abs().mean() < 0.1
    # weights were processed in float32: the vectors of both precisions belong together
    assert stamp(model).difference(stamp(loaded("llama", kind))) is None


@pytest.mark.skipif(HAS_HOOKED_TRANSFORMER, reason="TransformerLens 3 has HookedTransformer")
def test_no_hooked_transformer_to_be_had() -> None:
    with pytest.raises(sl.SteerlensError, match=r"has no HookedTransformer; install transformer-lens<4"):
        load_model("demo", bridge=False)


def test_the_default_class() -> None:
    model = load_model(plain_model("gpt2"), tokenizer=make_tokenizer(), device="cpu")
    assert is_bridge(model) != HAS_HOOKED_TRANSFORMER


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind: str) -> None:
    model = load_model(
        plain_model("llama"),
        tokenizer=make_tokenizer(),
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    got = model(torch.tensor([IDS], device="cuda")).log_softmax(-1)[0].cpu()
    assert_close(got, reference.log_probs(plain_model("llama"), IDS), rtol=1e-3, atol=1e-2)
