"""Models in memory: what they become, what they cannot become, and what is no model."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import steerlens as sl
from steerlens.models import is_bridge, load_model, stamp
from tests.conftest import HAS_HOOKED_TRANSFORMER, KINDS, loaded, make_tokenizer, plain_model


@pytest.mark.parametrize("kind", KINDS)
def test_a_live_model_is_returned_as_it_is(kind: str) -> None:
    model = loaded("gpt2", kind)
    assert load_model(model) is model


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_live_model_cannot_become(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", kind)
    assert load_model(model, bridge=is_bridge(model), device="cpu") is model
    if HAS_HOOKED_TRANSFORMER:
        with pytest.raises(sl.SteerlensError, match=f"the model is a {type(model).__name__} already"):
            load_model(model, bridge=not is_bridge(model))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(sl.SteerlensError, match=r"device='cuda' was asked for but the model is live on cpu"):
        load_model(model, device="cuda")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_device_map_reads_straight_onto_its_devices(dtype: str) -> None:
    spread = load_model("demo", device_map={"": "cpu"}, dtype=dtype)
    plain = load_model("demo", bridge=True, processing=False, dtype=dtype, device="cpu")
    assert is_bridge(spread)
    assert {weight.dtype for weight in spread.parameters()} == {getattr(torch, dtype)}
    tokens = plain.to_tokens("I went up to my friend")
    assert torch.equal(spread(tokens), plain(tokens))
    assert stamp(spread).difference(stamp(plain)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cpu"}, "device='cpu' does not go with device_map"),
        ({"bridge": False}, "bridge=False does not go with device_map"),
        ({"processing": True}, "processing=True does not go with device_map"),
        ({"source": nn.Linear(2, 2)}, "a Linear is in memory already; give its name or directory"),
        ({"device_map": "nonsense"}, "no device 'nonsense'"),
        ({"device_map": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"device_map": {}}, "device_map must be one of 'auto', .*, got {}"),
        ({"device_map": 7}, "device_map must be one of 'auto', .*, got 7"),
        ({"tokenizer": 5}, "tokenizer must be a Hugging Face tokenizer, got int"),
        ({"device_map": {"": "disk"}}, "leaves part of 'demo' on the disk"),
        ({"source": "./nowhere"}, "no directory at './nowhere'"),
    ],
)
def test_what_a_device_map_cannot_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(sl.SteerlensError, match=message):
        load_model(**{"source": "demo", "device_map": "auto"} | settings)


@pytest.mark.parametrize("architecture", ["llama", "gptj"])
def test_bfloat16_leaves_rotary_positions_exact(architecture: str, tmp_path: Path) -> None:
    """A bridge that is cast gives what one does that was read in bfloat16."""
    plain_model(architecture).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    read = load_model(tmp_path, device_map={"": "cpu"}, dtype="bfloat16")
    cast = load_model(tmp_path, bridge=True, processing=False, device="cpu", dtype="bfloat16")
    tokens = torch.randint(10, 8000, (2, 60), generator=torch.Generator().manual_seed(0))
    assert torch.equal(cast(tokens), read(tokens))


def test_a_hugging_face_model_on_several_devices_is_not_copied() -> None:
    model = deepcopy(plain_model("gpt2"))
    model.hf_device_map = {"transformer": 0, "lm_head": 1}
    with pytest.raises(sl.SteerlensError, match="spread over 2 devices and cannot be copied; give its name or dir"):
        load_model(model, tokenizer=make_tokenizer())


@pytest.mark.parametrize("tokenizer", ["gpt2", 5, []])
def test_a_tokenizer_that_is_none(tokenizer: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="must be a Hugging Face tokenizer, got"):
        load_model(plain_model("gpt2"), tokenizer=tokenizer)


def test_a_hugging_face_model_needs_a_tokenizer() -> None:
    with pytest.raises(sl.SteerlensError, match="GPT2LMHeadModel object came without a tokenizer"):
        load_model(plain_model("gpt2"))


@pytest.mark.parametrize("source", [None, 5, b"demo", ["demo"], nn.Linear(2, 2)])
def test_things_that_are_no_model(source: Any) -> None:
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(source, tokenizer=make_tokenizer())
    assert type(source).__name__ in str(caught.value)
