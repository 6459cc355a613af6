"""GGUF control vectors in llama.cpp: it reads the file with its own reader, and its model is steered as ours is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.models import smollm2, stamp
from tests.gguf_maker import tiny, write_gguf
from tests.steering.exchange import llama_cpp

pytestmark = pytest.mark.exchange

IDS = [40, 50, 60, 77, 90, 41]  # without BOS, which llama.cpp steers too and "all" does not
LAYERS = 4
# GPT-2's activation function is a table of half precision in llama.cpp.
TOLERANCE = {"llama": 1e-4, "qwen2": 1e-4, "gpt2": 5e-3}


@pytest.fixture(params=TOLERANCE, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An architecture, the file of a tiny model for llama.cpp, and the same as steerlens loads it."""
    llama_cpp.library()
    count = {"gpt2": "n_layer"}.get(request.param, "num_hidden_layers")
    path = tmp_path_factory.mktemp("gguf") / f"{request.param}.gguf"
    write_gguf(path, tiny(request.param, **{count: LAYERS}))
    return request.param, path, sl.load_model(path, device="cpu")


def vector(model: Any, layer: int, seed: int = 0, **fields: Any) -> sl.SteeringVector:
    values = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return sl.SteeringVector.of(model, values, layer=layer, **fields)


@torch.no_grad()
def ours(model: Any, ids: list[int], *steering: Any) -> np.ndarray:
    with sl.steer(model, *steering):
        return model(torch.tensor([ids])).log_softmax(-1)[0].numpy()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return torch.tensor(logits).log_softmax(-1).numpy()


def gap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def test_direction_n_is_the_input_of_the_next_block(pair: Any, tmp_path: Path) -> None:
    architecture, file, model = pair
    with llama_cpp.running(file) as llama:
        assert gap(log_softmax(llama.logits(IDS)), ours(model, IDS)) < TOLERANCE[architecture]
        for layer in range(2, LAYERS):
            one = 2 * vector(model, layer)
            llama.steer(sl.save_gguf(one, tmp_path / "v.gguf"))
            steered = log_softmax(llama.logits(IDS))
            assert gap(steered, ours(model, IDS, one)) < TOLERANCE[architecture]
            for beside in {layer - 1, (layer + 1) % LAYERS}:  # so that an error of one layer would show
                assert gap(steered, ours(model, IDS, 2 * vector(model, beside))) > 20 * TOLERANCE[architecture]


def test_several_layers_and_the_ends_of_blocks(pair: Any, tmp_path: Path) -> None:
    architecture, file, model = pair
    several = [vector(model, 2), 3 * vector(model, 3, 1), vector(model, 3, 2), vector(model, 1, 3, site="resid_post")]
    with llama_cpp.running(file) as llama:
        llama.steer(sl.save_gguf(several, tmp_path / "v.gguf"))
        assert gap(log_softmax(llama.logits(IDS)), ours(model, IDS, *several)) < TOLERANCE[architecture]
        last = vector(model, LAYERS - 1, site="resid_post")
        llama.steer(sl.save_gguf(last, tmp_path / "v.gguf"))
        assert gap(log_softmax(llama.logits(IDS)), ours(model, IDS, last)) < TOLERANCE[architecture]
        llama.steer(sl.save_gguf(vector(model, 2), tmp_path / "v.gguf"), scale=-2.0)
        assert gap(log_softmax(llama.logits(IDS)), ours(model, IDS, -2 * vector(model, 2))) < TOLERANCE[architecture]


def test_bos_is_steered_there_and_here_only_if_one_says_so(pair: Any, tmp_path: Path) -> None:
    architecture, file, model = pair
    ids, one = [1, *IDS], vector(model, 2)
    with llama_cpp.running(file) as llama:
        llama.steer(sl.save_gguf(one, tmp_path / "v.gguf"))
        steered = log_softmax(llama.logits(ids))
    assert gap(steered, ours(model, ids, one.on(0), one)) < TOLERANCE[architecture]
    assert gap(steered, ours(model, ids, one)) > 20 * TOLERANCE[architecture]


def test_greedy_text(pair: Any, tmp_path: Path) -> None:
    _, file, model = pair
    one = 2 * vector(model, 2)
    with llama_cpp.running(file) as llama:
        llama.steer(sl.save_gguf(one, tmp_path / "v.gguf"))
        tokens = llama.greedy(IDS, 8)
    ids = list(IDS)
    for _ in range(8):
        ids.append(int(ours(model, ids, one)[-1].argmax()))
    assert tokens == ids[len(IDS) :]


def test_its_reader_refuses_what_ours_never_writes(any_model: Any, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    one = vector(any_model, 2)
    read = llama_cpp.read_control_vector(sl.save_gguf(3 * one, tmp_path / "v.gguf"))
    assert np.array_equal(read, (3 * one).values[0].numpy())
    for name in ("direction.0", "direction.x"):
        writer = gguf.GGUFWriter(tmp_path / "bad.gguf", "controlvector")
        writer.add_tensor(name, one.values[0].numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert not len(llama_cpp.read_control_vector(tmp_path / "bad.gguf"))


def test_smollm2_within_its_quantisation(tmp_path: Path) -> None:
    """llama.cpp rounds activations to 8 bits beside weights of 4: steered, the two differ no more than unsteered."""
    try:
        folder = smollm2.directory()
    except sl.SteerlensError as error:
        pytest.skip(str(error))
    llama_cpp.library()
    (file,) = folder.parent.glob("*.gguf")
    model = sl.load_model("smollm2", device="cpu")
    love = sl.mean_difference(
        model, ["I love weddings, the bride", "We married"], ["The engine needs oil", "It broke"], layer=14
    )
    love = (40 * love / love.norm).on("all")
    assert love.model == stamp(model)
    ids = model.to_tokens("I went up to my friend and said that", prepend_bos=False)[0].tolist()
    with llama_cpp.running(file) as llama:
        plain, base = log_softmax(llama.logits(ids))[-1], ours(model, ids)[-1]
        llama.steer(sl.save_gguf(love, tmp_path / "v.gguf"))
        steered, expected = log_softmax(llama.logits(ids))[-1], ours(model, ids, love)[-1]
        tokens = llama.greedy(ids, 12)
    likely = np.exp(expected) > 1e-3  # where rounding counts
    rounding = np.abs(plain - base)[np.exp(base) > 1e-3].mean()
    difference = np.abs(steered - expected)[likely].mean()
    effect = np.abs(expected - base)[likely].mean()
    print(f"rounding {rounding:.3f}, steered {difference:.3f}, effect {effect:.3f}")
    assert difference < 2 * rounding + 0.02
    assert effect > 5 * difference
    frame = sl.generate(model, [ids], love, max_new_tokens=12, temperature=0, stop_at_end=False)
    print(model.tokenizer.decode(tokens), frame["completion"].tolist())
    assert model.tokenizer.decode(tokens) == frame["completion"][0]
