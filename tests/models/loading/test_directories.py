"""Models are read from directories, and what a directory lacks is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import load_model
from tests import reference
from tests.conftest import KINDS, make_tokenizer, plain_model
from tests.models.loading.cases import IDS


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Llama; the folder's name has nothing to do with its architecture."""
    folder = tmp_path_factory.mktemp("gpt2-llama-thing")
    plain_model("llama").save_pretrained(folder)
    make_tokenizer("prepends").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_text", [True, False])
def test_a_directory(kind: str, directory: Path, as_text: bool) -> None:
    model = load_model(
        str(directory) if as_text else directory,
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    assert_close(
        model(torch.tensor([IDS])).log_softmax(-1)[0],
        reference.log_probs(plain_model("llama"), IDS),
        rtol=1e-5,
        atol=1e-4,
    )
    assert model.cfg.model_name == directory.name
    assert model.to_tokens("Hi")[0, 0] == make_tokenizer("prepends").bos_token_id


def test_a_directory_without_tokenizer(directory: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(directory / name, tmp_path)
    with pytest.raises(sl.SteerlensError, match="tokenizer"):
        load_model(tmp_path, device="cpu")
    model = load_model(tmp_path, tokenizer=make_tokenizer("distinct"), device="cpu")
    assert model.tokenizer.eos_token == "</s>"


def test_a_directory_without_config(tmp_path: Path) -> None:
    with pytest.raises(sl.SteerlensError, match=r"holds no config\.json; give a directory in Hugging Face layout"):
        load_model(tmp_path)


@pytest.mark.parametrize("damage", ["config", "weights", "no weights", "architecture"])
def test_a_damaged_directory(directory: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(directory, tmp_path / "m")
    folder = tmp_path / "m"
    if damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "architecture":
        (folder / "config.json").write_text('{"model_type": "no-such-thing"}')
    elif damage == "weights":
        (folder / "model.safetensors").write_bytes(b"not weights at all")
    else:
        (folder / "model.safetensors").unlink()
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("source", ["./nowhere/at/all", "/nowhere", "~/nowhere", "a/b/c"])
def test_a_path_that_is_not_there(source: str) -> None:
    with pytest.raises(sl.SteerlensError, match=r"no directory at"):
        load_model(source)
