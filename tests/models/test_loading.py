"""`load_model`: what it takes, what it gives, what it leaves alone, and what it says when it cannot."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import DEMO_MODEL_PATH, is_bridge, load_model, stamp
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, KINDS, ROOT, VOCAB, Case, loaded, make_tokenizer, plain_model

IDS = [0, 11, 222, 3333, 44]


def load(hf: Any, kind: str, tokenizer: str = "plain", **options: Any) -> Any:
    return load_model(
        hf,
        tokenizer=make_tokenizer(tokenizer),
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
        **options,
    )


def test_same_predictions_as_the_hugging_face_model(case: Case) -> None:
    got = case.model(torch.tensor([IDS])).log_softmax(-1)[0]
    assert_close(got, reference.log_probs(case.hf, IDS), rtol=1e-5, atol=1e-4)
    assert is_bridge(case.model) == case.kind.startswith("bridge")
    assert not case.model.training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_the_callers_model_and_random_state_stay_as_they_are(architecture: str, kind: str) -> None:
    hf = reference.tiny_model(architecture, vocab=VOCAB, seed=5).train()
    tokenizer = make_tokenizer("prepends")
    before = {name: value.clone() for name, value in hf.state_dict().items()}
    modules = {name: type(module) for name, module in hf.named_modules()}
    special = (
        tokenizer.bos_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
        dict(tokenizer.init_kwargs),
        len(tokenizer),
    )
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    model = load(hf, kind, "prepends")
    model(torch.tensor([IDS]))
    assert hf.training
    assert {name: type(module) for name, module in hf.named_modules()} == modules
    assert hf.state_dict().keys() == before.keys()
    for name, value in hf.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert special == (
        tokenizer.bos_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
        dict(tokenizer.init_kwargs),
        len(tokenizer),
    )
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokenizer", ["plain", "distinct", "pad", "prepends"])
def test_tokenizers_made_in_memory(kind: str, tokenizer: str) -> None:
    """No name to reload them from, no hub to ask: the special tokens are the caller's."""
    model, given = loaded("gpt2", kind, tokenizer), make_tokenizer(tokenizer)
    assert (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id) == (given.bos_token_id, given.eos_token_id)
    assert len(model.tokenizer) == len(given)
    plain = given("Hello there", add_special_tokens=False)["input_ids"]
    assert model.to_tokens("Hello there").tolist() == [[given.bos_token_id, *plain]]
    assert model.tokenizer.pad_token_id is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_changed_after_reading_keeps_its_changes(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    make_tokenizer("distinct").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<mark>"]})
    model = load_model(plain_model("gpt2"), tokenizer=tokenizer, device="cpu", bridge=kind.startswith("bridge"))
    assert model.to_tokens("<mark>", prepend_bos=False).tolist() == [[tokenizer.convert_tokens_to_ids("<mark>")]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_real_gpt2_tokenizer(kind: str, gpt2_tokenizer: Any) -> None:
    hf = reference.tiny_model("gpt2", vocab=len(gpt2_tokenizer), n_layers=1)
    model = load_model(
        hf,
        tokenizer=gpt2_tokenizer,
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    assert sl.actadd(model, " weddings", " ", layer=0).source["tokens"] == [[50256, 37377], [50256, 220]]


# ------------------------------------------------------------------------------------------------- the embedded model


def test_demo(demo: Any) -> None:
    assert demo.cfg.model_name == "demo"
    assert is_bridge(demo) != HAS_HOOKED_TRANSFORMER
    assert str(demo.cfg.device) == "cpu"
    assert str(demo.cfg.dtype).endswith("float32")
    assert demo.to_string(demo.to_tokens("Weddings are fun", prepend_bos=False)[0]) == "Weddings are fun"


def test_demo_needs_no_network_and_leaves_no_noise() -> None:
    """In a process of its own whose every connection attempt is an error; nothing is printed, on either stream."""
    script = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("a connection was tried")
socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse
import steerlens as sl
model = sl.load_model("demo", device="cpu")
love = sl.actadd(model, "Love", "Hate", layer=2)
with sl.steer(model, love):
    model(model.to_tokens("I hate you because"))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    noise = [line for line in done.stderr.splitlines() if "warn" not in line.lower() or "steerlens" in line]
    assert noise == []


def test_missing_demo_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("steerlens.models.checkpoints.DEMO_MODEL_PATH", tmp_path)
    with pytest.raises(sl.SteerlensError, match=r"embedded model is missing.*train_demo_model\.py"):
        load_model("demo")


# ---------------------------------------------------------------------------------------------------------- directories


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


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "near"),
    [("gpt2-smal", "gpt2-small"), ("gtp2-xl", "gpt2-xl"), ("demoo", "demo"), ("pythia-70", "pythia-70m")],
)
def test_an_unknown_name_suggests_near_ones(name: str, near: str) -> None:
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(name)
    message = str(caught.value)
    assert f"{near!r}" in message
    assert "hub cannot be reached" in message, "the tests run offline (conftest.py): the message must say so"
    assert "\n" not in message


@pytest.mark.parametrize("bridge", [True, None])
def test_a_known_name_without_a_network(bridge: bool | None) -> None:
    with pytest.raises(sl.SteerlensError, match=r"must be downloaded.*cannot be reached.*'demo'"):
        load_model("gpt2-xl", bridge=bridge)


@pytest.mark.parametrize("reachable", [True, False])
def test_an_unreachable_hub_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    from huggingface_hub import constants
    from transformers import AutoTokenizer

    asked: list[Any] = []

    def connect(address: Any, timeout: float) -> Any:
        asked.append((address, timeout))
        if not reachable:
            raise socket.gaierror(-2, "Name or service not known")
        return socket.socket()

    def read(repo: str, *, local_files_only: bool) -> Any:
        asked.append(local_files_only)
        raise OSError("couldn't connect")

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example:8443")
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", read)
    with pytest.raises(sl.SteerlensError, match="the Hugging Face hub cannot be reached"):
        load_model("some-user/some-model")
    assert asked == [(("hub.example", 8443), 5), not reachable]
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    asked.clear()
    with pytest.raises(sl.SteerlensError):
        load_model("some-user/some-model")
    assert asked == [False], "a proxy may know a way"


@pytest.mark.parametrize("name", ["", "no spaces allowed", "näme", "some-user/some-model-that-is-not-there"])
def test_impossible_names(name: str) -> None:
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- live models


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


# ----------------------------------------------------------------------------------------------------- device and dtype


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


def test_demo_path_is_in_the_package() -> None:
    assert Path(sl.__file__).parent in DEMO_MODEL_PATH.parents
