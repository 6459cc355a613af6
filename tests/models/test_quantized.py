"""Models with packed weights: an unprocessed bridge around the very weights, exact against Hugging Face."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import is_bridge, load_model, proof_of
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, VOCAB, make_tokenizer

pytest.importorskip("bitsandbytes")

IDS = [0, 11, 222, 3333, 44]


def wide_model(width: int = 64) -> Any:
    """A random Llama whose rows are whole blocks of 64, in which 4 bits are packed."""
    import transformers as hf

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
        config = hf.LlamaConfig(vocab_size=VOCAB, bos_token_id=0, eos_token_id=0, pad_token_id=0, **settings, **heads)
        model = hf.LlamaForCausalLM(config)
        for weight in model.parameters():
            weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2)
    return model.eval()


def pack(folder: Path, bits: int, width: int = 64, dtype: torch.dtype = torch.float32) -> Any:
    """The model in few bits, live; its plain weights pass through `folder`."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    wide_model(width).save_pretrained(folder / "plain")
    settings = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    return AutoModelForCausalLM.from_pretrained(
        folder / "plain", quantization_config=settings, dtype=dtype, device_map="cpu"
    ).eval()


@pytest.fixture(scope="module", params=[4, 8])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Any, Path]:
    """The tiny Llama in 4 or 8 bits, live and saved."""
    folder = tmp_path_factory.mktemp("packed")
    model = pack(folder, request.param)
    model.save_pretrained(folder / "packed")
    make_tokenizer().save_pretrained(folder / "packed")
    reference.log_probs(model, IDS)  # some kernels lay the weights out anew when they first see a token
    return request.param, model, folder / "packed"


@pytest.mark.parametrize("live", [True, False])
def test_exactly_what_hugging_face_computes(packed: tuple[int, Any, Path], live: bool) -> None:
    _, original, folder = packed
    before = {name: value.clone() for name, value in original.named_parameters()}
    model = load_model(original, tokenizer=make_tokenizer(), device="cpu") if live else load_model(folder, device="cpu")
    assert is_bridge(model)
    assert proof_of(model) is not None
    expected = reference.log_probs(original, IDS)
    assert torch.equal(model(torch.tensor([IDS])).log_softmax(-1)[0], expected)
    assert all(torch.equal(value, before[name]) for name, value in original.named_parameters())
    assert (expected - reference.log_probs(wide_model(), IDS)).abs().max() > 1e-2, "packing changes something"


def test_steering(packed: tuple[int, Any, Path]) -> None:
    _, original, folder = packed
    model = load_model(folder, device="cpu")
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    with sl.steer(model, 2 * vector):
        got = model(torch.tensor([IDS])).log_softmax(-1)[0]
    expected = reference.log_probs(original, IDS, {1: 2 * vector.values})
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    assert (expected - reference.log_probs(original, IDS)).abs().max() > 0.1
    assert len(sl.generate(model, "I went up", [None, vector], n=2, max_new_tokens=3, temperature=0)) == 4
    live = load_model(original, tokenizer=make_tokenizer())
    with sl.steer(live, 2 * vector):  # the same weights, so the vector is of this model too
        assert torch.equal(live(torch.tensor([IDS])).log_softmax(-1)[0], got)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_saved_one_keeps_its_dtype(bits: int, tmp_path: Path) -> None:
    original = pack(tmp_path, bits, dtype=torch.bfloat16)
    original.save_pretrained(tmp_path / "packed")
    make_tokenizer().save_pretrained(tmp_path / "packed")
    model = load_model(tmp_path / "packed")
    logits = model(torch.tensor([IDS]))
    assert logits.dtype == model.cfg.dtype == torch.bfloat16
    expected = reference.log_probs(original, IDS)
    off = (logits.log_softmax(-1)[0] - expected).abs().mean()
    assert off < 0.04 < (expected - reference.log_probs(wide_model(), IDS)).abs().mean()


@pytest.mark.parametrize("asked", [{"processing": True}, *([{"bridge": False}] if HAS_HOOKED_TRANSFORMER else [])])
def test_what_packed_weights_cannot_become(packed: tuple[int, Any, Path], asked: dict[str, bool]) -> None:
    bits, original, _ = packed
    with pytest.raises(
        sl.SteerlensError, match=f"{next(iter(asked))}=.* packed into {bits} bits by bitsandbytes"
    ) as caught:
        load_model(original, tokenizer=make_tokenizer(), **asked)
    assert "\n" not in str(caught.value)


def test_a_device_that_they_are_not_on(packed: tuple[int, Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerlens.models.loading.read_device", lambda device: torch.device("meta"))
    with pytest.raises(sl.SteerlensError, match="on cpu and stays there, since its weights are packed into"):
        load_model(packed[1], tokenizer=make_tokenizer(), device="meta")


def test_a_model_that_cannot_run_is_one_line(tmp_path: Path) -> None:
    model = pack(tmp_path, 4, width=32)
    try:
        reference.log_probs(model, IDS)
    except RuntimeError:
        with pytest.raises(sl.SteerlensError, match=r"^LlamaForCausalLM itself \(its weights are packed into 4 bits"):
            load_model(model, tokenizer=make_tokenizer())
    else:
        load_model(model, tokenizer=make_tokenizer())  # this processor runs rows of half a block


def test_no_adapter_is_merged_into_them(packed: tuple[int, Any, Path]) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(copy.deepcopy(packed[1]), peft.LoraConfig(task_type="CAUSAL_LM", r=2))
    with pytest.raises(sl.SteerlensError, match="cannot be merged into its base without loss, since its weights are"):
        load_model(adapted, tokenizer=make_tokenizer())
