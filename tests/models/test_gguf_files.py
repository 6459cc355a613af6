"""GGUF files: the model and tokenizer that were written are the ones that are read, and what is not is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import load_model
from tests import reference
from tests.conftest import KINDS

gguf_maker = pytest.importorskip("tests.gguf_maker", reason="needs the gguf package", exc_type=ImportError)

IDS = [1, 40, 200, 77, 260, 9, 12, 99]


def load(path: Path, kind: str, **options: Any) -> Any:
    processing = not kind.endswith("raw")
    return load_model(path, device="cpu", bridge=kind.startswith("bridge"), processing=processing, **options)


@pytest.fixture(scope="module")
def llama_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path, model = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf", gguf_maker.tiny("llama")
    gguf_maker.write_gguf(path, model, quantised=True)
    return path, model


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_in_the_file(llama_file: tuple[Path, Any], kind: str) -> None:
    """Dequantised: compared with the very numbers that eight bits stand for."""
    path, original = llama_file
    model = load(path, kind)
    assert_close(
        model(torch.tensor([IDS])).log_softmax(-1)[0], reference.log_probs(original, IDS), rtol=1e-5, atol=1e-4
    )
    assert model.cfg.model_name == "tiny.Q8_0"


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_other_architectures(architecture: str, tmp_path: Path) -> None:
    original = gguf_maker.tiny(architecture)
    gguf_maker.write_gguf(tmp_path / "m.GGUF", original)
    model = load(tmp_path / "m.GGUF", KINDS[0])
    assert_close(
        model(torch.tensor([IDS])).log_softmax(-1)[0], reference.log_probs(original, IDS), rtol=1e-5, atol=1e-4
    )


def test_its_tokenizer(llama_file: tuple[Path, Any]) -> None:
    """The file says that BOS is not put in front; a prompt has it once all the same."""
    model = load(llama_file[0], KINDS[0])
    expected = [1, *(gguf_maker.TOKENS.index(piece) for piece in ("hello", "Ġthe", "Ġwe"))]
    assert model.to_tokens("hello the we").tolist() == [expected]
    assert (model.tokenizer.bos_token, model.tokenizer.eos_token, model.tokenizer.pad_token) == ("<s>", "</s>", "</s>")
    vector = sl.actadd(model, "hello", " the", layer=1)
    assert sl.generate(model, "hello", [None, vector], n=1, max_new_tokens=3).shape[0] == 2


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "a  1", ["a", "ĠĠ", "1"]),  # digits are cut off first, so that the spaces stay together
        ("gpt-2", "a  1", ["a", "Ġ", "Ġ", "1"]),
        ("llama-bpe", "hello\n\nthe", ["hello", "Ċ", "Ċ", "t", "he"]),
    ],
)
def test_texts_are_cut_as_the_file_says(
    pre: str, text: str, pieces: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_maker, "MERGES", [*gguf_maker.MERGES, "Ġ Ġ"])
    monkeypatch.setattr(gguf_maker, "TOKENS", [*gguf_maker.TOKENS, "ĠĠ"])
    gguf_maker.write_gguf(tmp_path / "m.gguf", gguf_maker.tiny("llama"), pre=pre)
    model = load(tmp_path / "m.gguf", "bridge-raw")
    assert model.tokenizer.convert_ids_to_tokens(model.to_tokens(text, prepend_bos=False)[0].tolist()) == pieces


@pytest.mark.parametrize("left", [0, 3, 40, 3000, -64])
def test_a_file_cut_short(left: int, llama_file: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / "short.gguf").write_bytes(llama_file[0].read_bytes()[:left])
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(tmp_path / "short.gguf")
    assert "short.gguf" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"extra": {"rope.scaling.type": "yarn"}},
            r"scales its rotary positions \(yarn\), which transformers does not",
        ),
        (
            {"also": {"rope_freqs.weight": np.ones(8, np.float32)}},
            r"scales its rotary positions \(rope_freqs\.weight\)",
        ),
        ({"extra": {"attention.key_length": 32.0}}, "says attention.key_length = 32 but transformers reads 16"),
        ({"also": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}, r"holds [\d,]+ numbers where the LlamaForCausalLM"),
        ({"leave_out": "blk.1.ffn_up.weight"}, r"lacks model\.layers\.1\.mlp\.up_proj\.weight"),
    ],
)
def test_what_transformers_would_pass_over(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    gguf_maker.write_gguf(tmp_path / "m.gguf", gguf_maker.tiny("llama"), **settings)
    with pytest.raises(sl.SteerlensError, match=message):
        load_model(tmp_path / "m.gguf")


def test_an_architecture_that_transformers_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gguf_maker.tiny("llama")
    gguf_maker.write_gguf(tmp_path / "m.gguf", model)
    damaged = (
        (tmp_path / "m.gguf")
        .read_bytes()
        .replace(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05" + b"\0" * 7 + b"rwkvx")
    )
    (tmp_path / "m.gguf").write_bytes(damaged)
    with pytest.raises(sl.SteerlensError, match="cannot read a model from .*rwkvx is not supported"):
        load_model(tmp_path / "m.gguf")


def test_no_file_and_no_package(llama_file: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sl.SteerlensError, match=r"no file at .*none\.gguf'; give the path of a GGUF file"):
        load_model(tmp_path / "none.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(sl.SteerlensError, match=r'gguf is not installed; pip install "steerlens\[gguf\]"'):
        load_model(llama_file[0])
