"""What a checkpoint must hold, the context of a model, and that loading starts no process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import steerlens as sl
from steerlens.models import load_model
from steerlens.models.no_processes import no_processes
from tests import reference
from tests.conftest import KINDS, VOCAB, make_tokenizer, plain_model


def saved(hf: Any, folder: Path, *, tokenizer: bool = True) -> Path:
    """The folder, with the model and a tokenizer in it."""
    hf.save_pretrained(folder)
    if tokenizer:
        make_tokenizer().save_pretrained(folder)
    return folder


def change(folder: Path, *, weights: Any = None, config: dict[str, Any] | None = None) -> None:
    """Rewrite the weights of a folder by a function of their dictionary, and entries of its configuration."""
    file = folder / "model.safetensors"
    if weights is not None:
        save_file(weights(load_file(file)), file, metadata={"format": "pt"})
    if config is not None:
        now = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(now | config))


def refused(folder: Path) -> str:
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_deleted_layer(tmp_path: Path) -> None:
    folder = saved(plain_model("llama"), tmp_path)
    change(folder, weights=lambda all: {name: w for name, w in all.items() if ".layers.1." not in name})
    text = refused(folder)
    assert "model.layers.1.input_layernorm.weight" in text
    assert "and 6 more are missing" in text


@pytest.mark.parametrize(("layers", "what"), [(4, "are missing"), (2, "are not among its weights")])
def test_another_number_of_layers_than_the_configuration_says(layers: int, what: str, tmp_path: Path) -> None:
    folder = saved(plain_model("llama"), tmp_path)
    change(folder, config={"num_hidden_layers": layers, "layer_types": None})
    text = refused(folder)
    assert f"model.layers.{max(layers - 1, 2)}." in text
    assert what in text


def test_a_weight_of_another_size(tmp_path: Path) -> None:
    folder = saved(plain_model("llama"), tmp_path)
    change(folder, weights=lambda all: all | {"model.norm.weight": torch.ones(16)})
    assert "model.norm.weight has another size than the configuration" in refused(folder)


def test_a_classifier_has_no_language_model_head(tmp_path: Path) -> None:
    import transformers as hf

    with torch.random.fork_rng(devices=[]):
        folder = saved(hf.LlamaForSequenceClassification(plain_model("llama").config), tmp_path)
    text = refused(folder)
    assert "lm_head.weight is missing" in text
    assert "score.weight is not one of its weights" in text


@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
def test_tied_weights_are_not_missing(architecture: str, tmp_path: Path) -> None:
    folder = saved(plain_model(architecture), tmp_path)
    assert not {"lm_head.weight"} & set(load_file(folder / "model.safetensors"))
    load_model(folder, device="cpu")


@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_a_directory_without_tokenizer_files(architecture: str, tmp_path: Path) -> None:
    text = refused(saved(plain_model(architecture), tmp_path, tokenizer=False))
    assert "tokenizer" in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_architectures(kind: str, tmp_path: Path) -> None:
    folder = saved(plain_model("llama"), tmp_path)
    change(folder, config={"architectures": None})
    options = {"bridge": kind.startswith("bridge"), "processing": not kind.endswith("raw")}
    model = load_model(folder, device="cpu", **options)  # type: ignore[arg-type]
    ids = list(range(10, 50))
    got = model(torch.tensor([ids])).log_softmax(-1)[0]
    torch.testing.assert_close(got, reference.log_probs(plain_model("llama"), ids), rtol=1e-4, atol=1e-3)
    live = deepcopy(plain_model("llama"))
    live.config.architectures = None
    load_model(live, tokenizer=make_tokenizer(), device="cpu", **options)  # type: ignore[arg-type]
    assert live.config.architectures is None


# ------------------------------------------------------------------------------------------------------------- context


def _mistral() -> Any:
    import transformers as hf

    config = hf.MistralConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        sliding_window=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return hf.MistralForCausalLM(config).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_own_context(kind: str) -> None:
    options = {"bridge": kind.startswith("bridge"), "processing": not kind.endswith("raw"), "device": "cpu"}
    hf = _mistral()
    model = load_model(hf, tokenizer=make_tokenizer(), **options)  # type: ignore[arg-type]
    assert model.cfg.n_ctx == 32768
    ids = torch.randint(10, 8000, (2300,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        got = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        assert (got - hf(torch.tensor([ids])).logits[0, -1].log_softmax(-1)).abs().max() < 1e-4
    fewer = load_model(hf, tokenizer=make_tokenizer(), n_ctx=100, **options)  # type: ignore[arg-type]
    assert fewer.cfg.n_ctx == 100


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_positions_of_a_table(kind: str) -> None:
    bridge, processing = kind.startswith("bridge"), not kind.endswith("raw")
    given = {"tokenizer": make_tokenizer(), "device": "cpu", "bridge": bridge, "processing": processing}
    model = load_model(plain_model("gpt2"), n_ctx=20, **given)  # type: ignore[arg-type]
    assert model.cfg.n_ctx == 20
    ids = list(range(10, 30))
    got = model(torch.tensor([ids])).log_softmax(-1)[0]
    torch.testing.assert_close(got, reference.log_probs(plain_model("gpt2"), ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_ctx", [0, -1, 1.5, "64", True, [64]])
def test_a_context_that_is_no_number(n_ctx: Any) -> None:
    with pytest.raises(sl.SteerlensError, match=r"n_ctx must be a whole number.*, got"):
        load_model("demo", n_ctx=n_ctx)


def test_more_positions_than_there_are() -> None:
    with pytest.raises(sl.SteerlensError, match=r"n_ctx=65 is more than the 64 positions of this model; give 64"):
        load_model(plain_model("gpt2"), tokenizer=make_tokenizer(), device="cpu", n_ctx=65)


# ------------------------------------------------------------------------------------------------------- no processes

WATCH = """
import sys
started = []
def watch(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"):
        started.append((event, arguments))
import steerlens as sl
import transformer_lens
sys.addaudithook(watch)
for folder in sys.argv[1:]:
    for bridge in (None, True):
        try:
            sl.load_model(folder, device="cpu", bridge=bridge)
            print("loaded")
        except sl.SteerlensError as error:
            print(error)
assert started == [], started
"""


def _with_vision() -> Any:
    import transformers as hf

    text = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = hf.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=8100,
        boi_token_index=8101,
        eoi_token_index=8102,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return hf.Gemma3ForConditionalGeneration(config)


def test_loading_starts_no_process(tmp_path: Path) -> None:
    """Not even where TransformerLens would like to install a package: the error names it."""
    folders = [saved(plain_model(one), tmp_path / one) for one in ("gpt2", "llama")]
    folders.append(saved(_with_vision(), tmp_path / "vision"))
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *map(str, folders)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:4] == ["loaded"] * 4
    assert len(said) == 6
    try:
        import torchvision  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        assert all("needs the package torchvision" in line for line in said[4:])


def test_other_threads_may_start_processes() -> None:
    codes: list[int] = []

    def work() -> None:
        codes.append(subprocess.run([sys.executable, "-c", ""], check=False).returncode)

    with no_processes("a model"):
        other = threading.Thread(target=work)
        other.start()
        other.join()
    assert codes == [0]

    def attempt() -> None:
        with no_processes("a model"), contextlib.suppress(PermissionError):  # swallowed, as TransformerLens does
            subprocess.run(["ls", "-l"], check=False)

    with pytest.raises(sl.SteerlensError, match="without running 'ls'"):
        attempt()
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("bridge", one) for one in (1, "yes", [])),
        *(("processing", one) for one in (0, "no", ())),
        *(("strides", one) for one in (None, 1)),
        *(("prove", one) for one in (None, 1, "x")),
        *(("device", one) for one in (None, 3, b"cpu", ["cpu"])),
        *(("dtype", one) for one in ([], {}, b"float32", float)),
        *(("tokenizer", one) for one in (0, "", b"x", {})),
        *(("device_map", one) for one in (0, [], b"auto")),
        *(("source", one) for one in (None, 0, True, b"demo", [], {}, "\0", "a\nb", "x" * 5000)),
    ],
)
def test_arguments_of_a_wrong_kind(argument: str, value: Any) -> None:
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(**{argument: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_live_model_keeps_its_context() -> None:
    model = load_model("demo", device="cpu")
    with pytest.raises(sl.SteerlensError, match="n_ctx does not go with a live model"):
        load_model(model, n_ctx=10)
