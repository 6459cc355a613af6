"""A model is called what its files call it, and the line that loads it again loads the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import DEMO_MODEL_PATH, load_code, model_name, stamp
from steerlens.models.naming import directory_name, live_name
from steerlens.models.run_settings import run_settings


def folder(tmp_path: Path, where: str, config: str | None = None, card: str | None = None) -> Path:
    made = tmp_path / where
    made.mkdir(parents=True)
    if config is not None:
        (made / "config.json").write_text(json.dumps({"_name_or_path": config}))
    if card is not None:
        (made / "README.md").write_text(card)
    return made


@pytest.mark.parametrize(
    ("where", "config", "name"),
    [
        ("weddings", None, "weddings"),
        ("run7/hf", None, "run7/hf"),
        ("run7/checkpoint-500", None, "run7/checkpoint-500"),
        ("hf", "openai/gpt2-xl", "openai/gpt2-xl"),
        ("gpt2-xl", "openai/gpt2-xl", "openai/gpt2-xl"),
        ("GPT2", "gpt2", "gpt2"),
        ("weddings-tuned", "gpt2", "weddings-tuned (gpt2)"),
        ("hf", "/data/ann/tiny-llama/", "tiny-llama"),
        ("hf", "C:\\data\\tiny-llama", "tiny-llama"),
        ("run7/hf", "/data/ann/checkpoint-10", "run7/hf"),
        ("run7/hf", "", "run7/hf"),
        ("hub/models--meta-llama--Llama-3.2-1B/snapshots/0123abcd", None, "meta-llama/Llama-3.2-1B"),
    ],
)
def test_the_name_of_a_directory(tmp_path: Path, where: str, config: str | None, name: str) -> None:
    assert directory_name(folder(tmp_path, where, config)) == name


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("---\nlicense: mit\nmodel_name: tiny-poet\n---\n# About", "tiny-poet"),
        ('---\nmodel-index:\n- name: "tiny-poet"\n  results: []\n---\n', "tiny-poet"),
        ("# model_name: no front matter", "run7/hf"),
        ("---\nmodel_name: model\n---\n", "run7/hf"),
    ],
)
def test_the_name_in_a_card(tmp_path: Path, card: str, name: str) -> None:
    assert directory_name(folder(tmp_path, "run7/hf", card=card)) == name


@pytest.mark.parametrize("config", ["not json", "[]", '{"_name_or_path": 5}'])
def test_files_that_say_nothing(tmp_path: Path, config: str) -> None:
    made = folder(tmp_path, "run7/hf")
    (made / "config.json").write_text(config)
    assert directory_name(made) == "run7/hf"


def test_the_name_of_an_object(tmp_path: Path) -> None:
    made = folder(tmp_path, "weddings")
    assert live_name(SimpleNamespace(config=SimpleNamespace(name_or_path="gpt2"))) == "gpt2"
    assert live_name(SimpleNamespace(config=SimpleNamespace(name_or_path=str(made)))) == "weddings"
    assert live_name(SimpleNamespace(config=SimpleNamespace(name_or_path=""))) == "a SimpleNamespace"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the embedded model in a directory called hf."""
    made = tmp_path_factory.mktemp("tiny-poet") / "hf"
    made.mkdir()
    for file in DEMO_MODEL_PATH.iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    return made


@pytest.mark.parametrize("options", [{}, {"processing": False}, {"bridge": True, "n_ctx": 64, "dtype": "bfloat16"}])
def test_the_code_loads_it_again(local: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.chdir(local)
    model: Any = sl.load_model(".", **options)
    assert model_name(model) == stamp(model).name == f"{local.parent.name}/hf"
    assert f"{local.parent.name}/hf" in repr(sl.actadd(model, "Love", "Hate", layer=1))
    assert run_settings(model)["loaded from"] == str(local)
    monkeypatch.chdir("/")
    names: dict[str, Any] = {"sl": sl}
    exec(load_code(model, folded=stamp(model).folded), names)
    again = names["model"]
    assert type(again) is type(model) and again.cfg.n_ctx == model.cfg.n_ctx and again.cfg.dtype == model.cfg.dtype
    assert stamp(again).difference(stamp(model)) is None
    ids = torch.tensor([[0, 5, 6, 7]])
    assert torch.equal(model(ids), again(ids))


def test_an_object_is_told_as_one(demo: Any) -> None:
    assert load_code(demo, folded=True).startswith('model = sl.load_model("demo"')
    bare = SimpleNamespace(cfg=SimpleNamespace(model_name="gpt2", dtype=torch.float32))
    assert load_code(bare, folded=True) == 'model = sl.load_model("gpt2")  # or the model that was given'  # type: ignore[arg-type]
