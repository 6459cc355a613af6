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
    vector of layer l here (at its input) becomes `direction.{l−1}`; llama.cpp has no `direction.0`, so l must be 2 or
    more. There is no exception for BOS either: position 0 is steered too. Coefficients are multiplied in.

    Args:
        vectors: one-position vectors placed at `"all"`, of one model.
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
        values = vector.values[0].cpu()
        directions[vector.layer - 1] = directions.get(vector.layer - 1, torch.zeros_like(values)) + values
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


def _check(vector: object, first: SteeringVector) -> None:
    if not isinstance(vector, SteeringVector):
        raise SteerlensError(f"expected a SteeringVector, got {type(vector).__name__}")
    if vector.n_positions != 1 or vector.placement != "all":
        raise SteerlensError(
            f"a GGUF control vector is added at every position, but {vector.label!r:.60} spans {vector.n_positions} "
            f"and is placed at {vector.placement!r}; give a one-position vector, as vector.at(i).on('all')"
        )
    if vector.site != "resid_pre":
        raise SteerlensError(f"a GGUF control vector goes to the residual stream between blocks, not to {vector.site}")
    if vector.layer < 2:
        raise SteerlensError(f"llama.cpp has no direction for layer {vector.layer} (at its input); use layer 2 or more")
    if (difference := vector.model.difference(first.model)) is not None:
        raise SteerlensError(f"the vectors belong to two models: {difference}")
