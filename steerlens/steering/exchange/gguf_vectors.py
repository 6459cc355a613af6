"""GGUF control vectors: what llama.cpp and repeng read and write."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from steerlens.arguments import text
from steerlens.errors import SteerlensError
from steerlens.extras import needs
from steerlens.models import HookedModel, require_model, stamp
from steerlens.steering.exchange.block_outputs import Vectors, block_outputs, listed_vectors
from steerlens.steering.exchange.torch_files import existing_file
from steerlens.steering.vectors import SteeringVector
from steerlens.whole_files import write_whole

_ARCHITECTURE = "controlvector"


def save_gguf(vectors: Vectors, path: str | Path, *, model_hint: str | None = None) -> Path:
    """The path of a GGUF control vector that adds what the vectors add; several at one layer are summed.

    In that format a direction is added to every position at the *output* of a block and has that block's number, so a
    vector at the input of layer l becomes `direction.{l−1}` and one at `"resid_post"` of layer l `direction.{l}`.
    llama.cpp has no `direction.0`, so the first layers at which a vector can go are 2 and, at `"resid_post"`, 1.
    Coefficients are multiplied in: the file is for `--control-vector FILE`, whose scale is 1.

    BOS is steered too, which `"all"` leaves out: `steer(model, vector, vector.on(0))` is what llama.cpp does with a
    prompt that begins with BOS.

    Which models: a control vector is for llama.cpp's decoders that have it, which are nearly all. Some read the file
    and silently do nothing (looked up in the source of build 11434): encoders (BERT, ModernBERT, EuroBERT, NeoBERT and
    relatives), PLaMo 2, and the draft models EAGLE-3 and Gemma 4 assistant. A vector of another width is an error
    there. repeng reads every file. Vectors of processed models (centred writing weights) act on logits as here.

    Shown with llama.cpp itself, which gives steerlens' steered log-probabilities to 1e-4 for Llama and Qwen 2, to 5e-3
    for GPT-2 (whose activation function it has as a table in half precision).

    Args:
        vectors: one-position vectors placed at `"all"`, at site `"resid_pre"` or `"resid_post"`, of one model.
        model_hint: the model's name in the file; by default the name in the vectors' stamp.

    Raises:
        SteerlensError: a vector that the format cannot express, a path that cannot be written, gguf not installed.
    """
    (gguf,) = needs("gguf", extra="gguf")
    hint = None if model_hint is None else text("model_hint", model_hint)
    directions = block_outputs(vectors, "a GGUF control vector", first=1)
    named = hint or listed_vectors(vectors)[0].model.name
    with tempfile.TemporaryDirectory(prefix="steerlens-") as folder:
        written = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(str(written), _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", named)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(directions))
        for layer, values in directions.items():
            writer.add_tensor(f"direction.{layer}", values.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return write_whole(path, written.read_bytes(), "the control vector")


def load_gguf(model: HookedModel, path: str | Path) -> dict[int, SteeringVector]:
    """The vectors of a GGUF control vector by layer, declared to belong to `model` (the file cannot tell).

    `direction.{l}` is added at the output of block l, so it becomes the vector of layer l + 1, that of the last block
    (which has no layer after it) the vector at site `"resid_post"` of that block, under the number of layers. Placement
    `"all"`, which leaves BOS out; llama.cpp and repeng steer it too.

    Raises:
        SteerlensError: no such file, other content, directions with another width or for layers that do not exist.
    """
    (gguf,) = needs("gguf", extra="gguf")
    require_model(model)
    path = existing_file(path, "a GGUF control vector")
    try:
        reader = gguf.GGUFReader(str(path))
        tensors = {str(tensor.name): torch.tensor(tensor.data.copy()).float() for tensor in reader.tensors}
        hint = reader.get_field(f"{_ARCHITECTURE}.model_hint")
        named = bytes(hint.parts[-1]).decode("utf-8", "replace") if hint else ""
    except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
        raise SteerlensError(f"{path} is no GGUF file: {str(error).splitlines()[0]}") from None
    found: dict[int, SteeringVector] = {}
    for name, values in tensors.items():
        begin, _, number = name.partition(".")
        known = begin == "direction" and number.isascii() and number.isdigit() and len(number) < 10
        if not known or values.ndim != 1:
            raise SteerlensError(f"{path} holds {name!r}, so it is no control vector; give one of repeng or llama.cpp")
        layer, n_layers = int(number) + 1, int(model.cfg.n_layers)
        if layer > n_layers:
            raise SteerlensError(f"{path} holds {name!r}, but this model has blocks 0 to {n_layers - 1}")
        source = {"method": "foreign", "format": "gguf control vector", "file": path.name, "model_hint": named}
        label = f"{path.stem} (foreign)"
        last = layer == n_layers
        place: dict[str, Any] = {"layer": layer - last, "site": "resid_post" if last else "resid_pre"}
        found[layer] = SteeringVector(
            values[None], model=stamp(model), label=label, placement="all", source=source, **place
        )
    if not found:
        raise SteerlensError(f"{path} holds no direction")
    return dict(sorted(found.items()))
