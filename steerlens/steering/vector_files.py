"""The file of a steering vector: safetensors with its values and one JSON record. Plain data in, plain data out.

Files come from anywhere: nothing in them is executed, and nothing is trusted before it is checked.
"""

from __future__ import annotations

import json
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
    from safetensors.torch import save

    try:
        # NaN and infinity are no JSON: other programs could not read them.
        text = json.dumps(record, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SteerlensError(
            f"the vector's source is no plain data ({error}); keep text, finite numbers, lists and mappings in it"
        ) from None
    return save({"values": values.detach().cpu().contiguous()}, {"format": FORMAT, "vector": text})


def read_vector_file(path: object) -> tuple[Tensor, dict[str, Any]]:
    """The values and the record of a file that `write_vector_file` has written.

    Raises:
        SteerlensError: no file, another format, or content that is not plain data. A pickle is refused unopened.
    """
    from safetensors import SafetensorError, safe_open

    path = path_to(path)
    try:
        there = path.is_file()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise SteerlensError(f"no file at {path}; give the path of a vector saved with SteeringVector.save")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in _READ or "vector" not in metadata:
                raise SteerlensError(f"{path} is no steering vector but other safetensors; save one with .save()")
            # Numbers of thousands of digits are a ValueError, deep nesting a RecursionError.
            record, values = json.loads(metadata["vector"], parse_constant=_no_number), file.get_tensor("values")
        if not isinstance(record, dict):
            raise TypeError
        if not values.dtype.is_floating_point or values.is_sparse:
            raise TypeError
    except SteerlensError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError, UnicodeError) as error:
        raise SteerlensError(
            f"{path} is no steering vector ({type(error).__name__}); only files saved with .save() are read"
        ) from None
    return values, record


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
