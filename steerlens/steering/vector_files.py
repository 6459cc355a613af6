"""The files of steering vectors and injections: safetensors with their numbers and one JSON record. Plain data in,
plain data out.

Files come from anywhere: nothing in them is executed, and nothing is trusted before it is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import path_to
from steerlens.errors import SteerlensError
from steerlens.whole_files import write_whole

FORMAT = "steerlens.vector.2"
# Version 1 had no sites: its vectors are of the residual stream at the input of a block.
_READ = ("steerlens.vector.1", FORMAT)
# A format of its own: whoever reads vectors alone must not take an injection for the vector in it and add that.
INJECTION_FORMAT = "steerlens.injection.1"


def write_vector_file(path: object, values: Float[Tensor, "pos width"], record: dict[str, Any]) -> Path:
    """The path of a file with `values` and `record`, which is written whole or not at all.

    Raises:
        SteerlensError: a record that is not plain data, a path that cannot be written.
    """
    return write_whole(path, vector_bytes(values, record), "the vector")


def vector_bytes(values: Float[Tensor, "pos width"], record: dict[str, Any]) -> bytes:
    """What a file with `values` and `record` holds.

    Raises:
        SteerlensError: a record that is not plain data.
    """
    return _bytes({"values": values}, {"format": FORMAT, "vector": _json(record)})


def write_injection_file(path: object, tensors: Mapping[str, Tensor], record: dict[str, Any]) -> Path:
    """The path of a file with an injection's tensors and `record`, which is written whole or not at all.

    Raises:
        SteerlensError: a record that is not plain data, a path that cannot be written.
    """
    content = _bytes(tensors, {"format": INJECTION_FORMAT, "injection": _json(record)})
    return write_whole(path, content, "the injection")


def _json(record: dict[str, Any]) -> str:
    try:
        # NaN and infinity are no JSON: other programs could not read them.
        return json.dumps(record, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SteerlensError(
            f"the vector's source is no plain data ({error}); keep text, finite numbers, lists and mappings in it"
        ) from None


def _bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    from safetensors.torch import save

    return save({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, metadata)


def read_vector_file(path: object) -> tuple[Tensor, dict[str, Any]]:
    """The values and the record of a file that `write_vector_file` has written.

    Raises:
        SteerlensError: no file, another format, or content that is not plain data. A pickle is refused unopened.
    """
    tensors, record = _read(path, "vector", _READ)
    return tensors["values"], record


def read_injection_file(path: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of a file that `write_injection_file` has written.

    Raises:
        SteerlensError: as for `read_vector_file`.
    """
    return _read(path, "injection", (INJECTION_FORMAT,))


def _read(path: object, what: str, formats: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    called = {"vector": "SteeringVector", "injection": "Injection"}
    path = path_to(path)
    try:
        there = path.is_file()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise SteerlensError(f"no file at {path}; give the path of a file saved with {called[what]}.save")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in formats or what not in metadata:
                raise SteerlensError(f"{path} is no steering {what} but {_instead(metadata)}")
            # Numbers of thousands of digits are a ValueError, deep nesting a RecursionError.
            record = json.loads(metadata[what], parse_constant=_no_number)
            tensors = {name: file.get_tensor(name) for name in {"values", *file.keys()}}
        if not isinstance(record, dict):
            raise TypeError
        if any(not one.dtype.is_floating_point or one.is_sparse for one in tensors.values()):
            raise TypeError
    except SteerlensError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError, UnicodeError) as error:
        raise SteerlensError(
            f"{path} is no steering {what} ({type(error).__name__}); only files saved with .save() are read"
        ) from None
    return tensors, record


def _instead(metadata: Mapping[str, str]) -> str:
    """What a file holds, and what reads it."""
    if metadata.get("format") == INJECTION_FORMAT:
        return "an injection, which does more than add a vector; read it with Injection.load"
    if metadata.get("format") in _READ:
        return "a vector; read it with SteeringVector.load"
    return "other safetensors; save one with .save()"


def on_device(values: Tensor, device: torch.device | str, *, path: object) -> Tensor:
    """The values on a device.

    Raises:
        SteerlensError: there is no device of that name.
    """
    try:
        return values.to(device)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SteerlensError(f"no device {str(device)!r} to load {path} to ({reason}); use 'cpu'") from None


def _no_number(text: str) -> float:
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(text)
