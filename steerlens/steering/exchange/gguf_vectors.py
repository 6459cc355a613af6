"""GGUF control vectors: what llama.cpp and repeng read and write."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from steerlens.arguments import listed, text
from steerlens.errors import SteerlensError
from steerlens.extras import needs
from steerlens.models import HookedModel, require_model, stamp
from steerlens.steering.exchange.torch_files import existing_file
from steerlens.steering.vectors import SteeringVector
from steerlens.whole_files import write_whole

_ARCHITECTURE = "controlvector"


def save_gguf(
    vectors: SteeringVector | Sequence[SteeringVector], path: str | Path, *, model_hint: str | None = None
) -> Path:
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
    given = [vectors] if isinstance(vectors, SteeringVector) else listed("vectors", vectors, of="vectors")
    hint = None if model_hint is None else text("model_hint", model_hint)
    if not given:
        raise SteerlensError("there is no vector to save; give at least one")
    directions: dict[int, torch.Tensor] = {}
    for vector in given:
        _check(vector, given[0])
        values, block = vector.values[0].cpu(), _block_before(vector)
        directions[block] = directions.get(block, torch.zeros_like(values)) + values
    with tempfile.TemporaryDirectory(prefix="steerlens-") as folder:
        written = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(str(written), _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", hint or given[0].model.name)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(directions))
        for layer, values in sorted(directions.items()):
            writer.add_tensor(f"direction.{layer}", values.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return write_whole(path, written.read_bytes(), "the control vector")


def load_gguf(model: HookedModel, path: str | Path) -> dict[int, SteeringVector]:
    """The vectors of a GGUF control vector by layer, declared to belong to `model` (the file cannot tell).

    `direction.{l}` is added at the output of block l, so it becomes the vector of layer l + 1. Placement `"all"`.

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
        if begin != "direction" or not number.isdigit() or values.ndim != 1:
            raise SteerlensError(f"{path} holds {name!r}, so it is no control vector; give one of repeng or llama.cpp")
        layer = int(number) + 1
        if layer >= model.cfg.n_layers:
            continue  # added after the last block: no block's input
        source = {"method": "foreign", "format": "gguf control vector", "file": path.name, "model_hint": named}
        label = f"{path.stem} (foreign)"
        found[layer] = SteeringVector(values[None], layer, stamp(model), label=label, placement="all", source=source)
    if not found:
        raise SteerlensError(f"{path} holds no direction of a layer that this model has")
    return dict(sorted(found.items()))


def _block_before(vector: SteeringVector) -> int:
    """The block whose output the vector is added to."""
    return vector.layer if vector.site == "resid_post" else vector.layer - 1


def _check(vector: object, first: SteeringVector) -> None:
    if not isinstance(vector, SteeringVector):
        raise SteerlensError(f"expected a SteeringVector, got {type(vector).__name__}")
    if vector.n_positions != 1 or vector.placement != "all":
        raise SteerlensError(
            f"a GGUF control vector is added at every position, but {vector.label!r:.60} spans {vector.n_positions} "
            f"and is placed at {vector.placement!r}; give a one-position vector, as vector.at(i).on('all')"
        )
    if vector.site not in ("resid_pre", "resid_post"):
        raise SteerlensError(f"a GGUF control vector goes to the residual stream between blocks, not to {vector.site}")
    if _block_before(vector) < 1:
        least = 2 if vector.site == "resid_pre" else 1
        raise SteerlensError(
            f"llama.cpp has no direction for {vector.site} of layer {vector.layer}; use layer {least} or more"
        )
    if (difference := vector.model.difference(first.model)) is not None:
        raise SteerlensError(f"the vectors belong to two models: {difference}")
