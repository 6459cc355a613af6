"""Adapters of PEFT: merged into a copy that computes the same, and whose vectors are not the base's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import load_model
from tests.conftest import KINDS, make_tokenizer, plain_model

peft = pytest.importorskip("peft")

IDS = [0, 11, 222, 3333, 44]


def with_adapter(**settings: Any) -> Any:
    """A PeftModel of the tiny Llama whose adapter does a good deal."""
    import copy

    base = copy.deepcopy(plain_model("llama"))
    chosen = {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **chosen)).eval()


@torch.no_grad()
def log_probs(hf_model: Any) -> torch.Tensor:
    return hf_model(torch.tensor([IDS])).logits[0].log_softmax(-1)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A base and an adapter that names it, and the PeftModel they were written from."""
    folder = tmp_path_factory.mktemp("adapters")
    plain_model("llama").save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    model = with_adapter()
    model.peft_config["default"].base_model_name_or_path = str(folder / "base")
    model.save_pretrained(folder / "polite")
    return folder / "base", folder / "polite", model


@pytest.mark.parametrize("kind", KINDS)
def test_a_live_peft_model(kind: str) -> None:
    adapted = with_adapter()
    expected, weights = log_probs(adapted), {name: value.clone() for name, value in adapted.state_dict().items()}
    assert (expected - log_probs(plain_model("llama"))).abs().max() > 0.1, "an adapter that does nothing tests nothing"
    model = load_model(
        adapted,
        tokenizer=make_tokenizer(),
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    assert_close(model(torch.tensor([IDS])).log_softmax(-1)[0], expected, rtol=1e-5, atol=1e-4)
    assert adapted.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in adapted.state_dict().items())
    assert "+ adapter" in sl.actadd(model, "Love", "Hate", layer=1).model.name


@pytest.mark.parametrize("give_base", ["named", "directory", "object"])
def test_an_adapter_directory(directories: tuple[Path, Path, Any], give_base: str) -> None:
    base, folder, adapted = directories
    given: dict[str, Any] = {
        "named": {},
        "directory": {"base": base},
        "object": {"base": plain_model("llama"), "tokenizer": make_tokenizer()},
    }[give_base]
    before = {name: value.clone() for name, value in plain_model("llama").state_dict().items()}
    model = load_model(folder, device="cpu", **given)
    assert_close(model(torch.tensor([IDS])).log_softmax(-1)[0], log_probs(adapted), rtol=1e-5, atol=1e-4)
    assert model.cfg.model_name.endswith(" + polite")
    assert all(torch.equal(value, before[name]) for name, value in plain_model("llama").state_dict().items())


def test_the_tokenizer_beside_the_adapter_goes_first(directories: tuple[Path, Path, Any], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(directories[1], tmp_path / "a")
    make_tokenizer("distinct").save_pretrained(tmp_path / "a")
    assert load_model(tmp_path / "a", device="cpu").tokenizer.eos_token == "</s>"


def test_the_base_is_named_but_not_there(directories: tuple[Path, Path, Any], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(directories[1], tmp_path / "a")
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for base, message in (
        (
            "./nowhere/at/all",
            r"the base of the adapter in .* cannot be loaded: no directory at .*; give another with base=",
        ),
        (None, r"the adapter in .* names no base model; give it: load_model\(…, base=…\)"),
    ):
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": base}))
        with pytest.raises(sl.SteerlensError, match=message):
            load_model(tmp_path / "a")


def test_what_cannot_be_merged() -> None:
    import copy

    prompts = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(copy.deepcopy(plain_model("llama")), prompts)
    with pytest.raises(sl.SteerlensError, match="kind PROMPT_TUNING has no weights that could be merged"):
        load_model(model, tokenizer=make_tokenizer())


def test_an_adapter_of_another_model(directories: tuple[Path, Path, Any]) -> None:
    with pytest.raises(sl.SteerlensError, match="cannot read an adapter from .*polite") as caught:
        load_model(directories[1], base=plain_model("gpt2"), tokenizer=make_tokenizer())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["config", "weights"])
def test_a_damaged_adapter(directories: tuple[Path, Path, Any], tmp_path: Path, damage: str) -> None:
    import shutil

    shutil.copytree(directories[1], tmp_path / "a")
    name = {"config": "adapter_config.json", "weights": "adapter_model.safetensors"}[damage]
    (tmp_path / "a" / name).write_bytes(b"{")
    with pytest.raises(sl.SteerlensError, match="cannot read ") as caught:
        load_model(tmp_path / "a", base=directories[0])
    assert "\n" not in str(caught.value)


def test_base_without_an_adapter() -> None:
    with pytest.raises(sl.SteerlensError, match=r"base= goes with the directory of an adapter"):
        load_model("demo", base="demo")


def test_without_peft(directories: tuple[Path, Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(sl.SteerlensError, match=r'peft is not installed; pip install "steerlens\[peft\]"'):
        load_model(directories[1])
