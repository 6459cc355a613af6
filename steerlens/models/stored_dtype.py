"""`stored_dtype`: what the weights of a large checkpoint are stored in, read from the heads of its files."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import torch

LARGE = 50_000_000
"""Parameters from which on a model is read in the dtype of its files and converted piece by piece, which takes longer
and far less memory."""
_HALF = {"BF16": torch.bfloat16, "F16": torch.float16}
_FLOATS = {"F32", "F64", *_HALF}


def stored_dtype(place: str | Path, **where: Any) -> torch.dtype:
    """bfloat16 or float16 where all weights of a large model are stored in it, else float32.

    Args:
        place: a directory or a name of the hub.
        where: `local_files_only`, as for Hugging Face's `from_pretrained`.
    """
    try:
        counts = Counter[str]()
        for file in _files(place, **where):
            counts += _counts(file)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error):
        return torch.float32  # who reads the weights says what is wrong with the files
    if len(counts) != 1 or counts.total() < LARGE:
        return torch.float32
    return _HALF.get(next(iter(counts)), torch.float32)


def _files(place: str | Path, **where: Any) -> list[Path]:
    """The safetensors files of a checkpoint."""
    from transformers.utils import cached_file

    def found(name: str) -> Path | None:
        file = cached_file(place, name, _raise_exceptions_for_missing_entries=False, **where)
        return None if file is None else Path(file)

    if (whole := found("model.safetensors")) is not None:
        return [whole]
    if (index := found("model.safetensors.index.json")) is None:
        return []
    names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return [file for name in names if (file := found(name)) is not None]


def _counts(file: Path) -> Counter[str]:
    """How many numbers of which floating dtype a file holds."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > 100_000_000:
            raise ValueError(f"{file} has no head")
        head = json.loads(opened.read(length))
    counts = Counter[str]()
    for name, tensor in head.items():
        if name != "__metadata__" and tensor["dtype"] in _FLOATS:
            counts[tensor["dtype"]] += math.prod(tensor["shape"])
    return counts
