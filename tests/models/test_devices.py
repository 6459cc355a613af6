"""`dtype="auto"`: bfloat16 for large models where the device computes in it, said once; else float32."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import devices
from tests.conftest import KINDS, freshly_loaded, loaded

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu sse avx512f avx512_bf16 amx_tile", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu sse avx512f", False),
        ("model name\t: avx512_bf16", False),
        ("", False),
    ],
)
def test_what_a_processor_says_of_itself(line: str, has: bool, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\npower management:\n")
    monkeypatch.setattr(devices, "_PROCESSOR", tmp_path / "cpuinfo")
    assert devices.has_bfloat16(CPU) is has


def test_without_a_description_of_the_processor_float32_is_taken(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(devices, "_PROCESSOR", tmp_path / "none")
    assert devices.auto_dtype(CPU, 10**12) == (torch.float32, None)


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("bridge", [None, True])
def test_auto_asks_for_a_large_model_and_the_hardware(large: bool, has: bool, bridge: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: has)
    monkeypatch.setattr(devices, "LARGE", 10_000 if large else 10**12)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model: Any = sl.load_model("demo", dtype="auto", device="cpu", bridge=bridge, prove=False)
    wanted = torch.bfloat16 if large and has else torch.float32
    assert {weight.dtype for weight in model.parameters()} == {wanted}
    said = [str(one.message) for one in caught if "auto" in str(one.message)]
    assert len(said) == (large and has) and not any("\n" in line for line in said)
    assert sl.generate(model, "I", n=1, max_new_tokens=1).attrs["dtype"] == str(wanted).removeprefix("torch.")


def test_a_live_model_stays_as_it_is(demo: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(devices, "LARGE", 1)
    assert sl.load_model(demo, dtype="auto") is demo
    assert next(iter(demo.parameters())).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_one_dtype_steer_models_of_the_other(kind: str) -> None:
    full, half = loaded("llama", kind), loaded("llama", kind, dtype="bfloat16")
    ids = torch.tensor([[1, 5, 7, 9, 11]])
    for source in (full, half):
        vector = 4 * sl.actadd(source, "Love", "Hate", layer=1)
        logits = {}
        for model in (full, half):
            before = model(ids).float()
            with sl.steer(model, vector):
                logits[model] = model(ids).float().log_softmax(-1)
            assert not torch.equal(logits[model], before.log_softmax(-1))
        assert (logits[full] - logits[half]).abs().mean() < 0.1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("bridge")])
def test_a_bridge_is_cast_as_transformer_lens_casts_it_without_a_copy_for_every_weight(
    kind: str, monkeypatch: Any
) -> None:
    """The same weights and logits; the number of state dicts made does not grow with the model."""
    made = []
    state_dict = torch.nn.Module.state_dict

    def counted(module: Any, *args: Any, **options: Any) -> Any:
        made.append(module)
        return state_dict(module, *args, **options)

    theirs, ours = (freshly_loaded("gpt2", kind) for _ in range(2))
    theirs = theirs.to(torch.bfloat16)
    monkeypatch.setattr(torch.nn.Module, "state_dict", counted)
    ours = devices.moved(ours, torch.bfloat16)
    monkeypatch.undo()
    assert not made
    assert ours.cfg.dtype == torch.bfloat16
    for model in (ours, ours.original_model):
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    weights = theirs.state_dict()
    assert weights.keys() == ours.state_dict().keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in ours.state_dict().items())
    ids = torch.tensor([[0, 5, 9, 3]])
    assert torch.equal(ours(ids), theirs(ids))
