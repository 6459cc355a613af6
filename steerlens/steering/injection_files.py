"""Injections as plain data and tensors, and their files: the vector with all that says how it acts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from steerlens.errors import SteerlensError
from steerlens.models import ModelStamp
from steerlens.steering.ramps import Ramp
from steerlens.steering.vector_files import on_device, read_injection_file, write_injection_file
from steerlens.steering.vectors import SteeringVector

_VECTOR = ("layer", "label", "placement", "coeff", "source", "site", "heads")
_BESIDE = ("mean", "reads")


class InFile:
    """What can be saved and loaded: an injection, in terms of its own fields."""

    def save(self: Any, path: str | Path) -> Path:
        """Write the injection as safetensors (its vectors' values and a JSON header); returns the path.

        The file is written whole or not at all. Whatever can be saved can be loaded.

        Raises:
            SteerlensError: the path cannot be written; a `source` that is not plain data; a gate, which needs a pass
                of its own.
        """
        record = injection_record(self)
        tensors = {"values": record["vector"].pop("values")}
        for name in _BESIDE:
            if record[name] is not None:
                tensors[name] = record[name].pop("values")
        return write_injection_file(path, tensors, record)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> Self:
        """The injection saved at `path`.

        Only safetensors is read; a pickle is refused without being opened.

        Raises:
            SteerlensError: no file, another format, or damaged content.
        """
        tensors, record = read_injection_file(path)
        tensors = {name: on_device(one, device, path=path) for name, one in tensors.items()}
        try:
            for name, values in (("vector", "values"), ("mean", "mean"), ("reads", "reads")):
                if record[name] is not None:
                    record[name]["values"] = tensors[values]
            return cls(**injection_fields(record))
        except (SteerlensError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise SteerlensError(f"{path} is no usable injection: {error or type(error).__name__}") from None


def injection_record(injection: Any) -> dict[str, Any]:
    """All that an injection is, as plain data and tensors.

    Raises:
        SteerlensError: a `source` that is not plain data; a gate, which needs a pass of its own.
    """
    if injection.gate is not None:
        raise SteerlensError("a file of an injection has no gates, which need a pass of their own; save it without")
    ramp = injection.ramp
    return {
        "vector": _plain(injection.vector),
        "placement": injection.placement,
        "operation": injection.operation,
        "value": injection.value,
        "ramp": None if ramp is None else {"points": list(ramp.points), "over": ramp.over},
        **{name: None if (one := getattr(injection, name)) is None else _plain(one) for name in _BESIDE},
    }


def injection_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the injection that `injection_record` has described."""
    ramp = record["ramp"]
    return {
        "vector": _vector(record["vector"]),
        "placement": record["placement"],
        "operation": record["operation"],
        "value": record["value"],
        "ramp": None if ramp is None else Ramp(ramp["points"], ramp["over"]),
        # (Files from before there was an operation that reads have nothing to read with.)
        **{name: None if (one := record.get(name)) is None else _vector(one) for name in _BESIDE},
    }


def _plain(vector: SteeringVector) -> dict[str, Any]:
    try:
        source = json.loads(json.dumps(vector.source, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SteerlensError(
            f"the vector's source is no plain data ({error}); keep text, finite numbers, lists and mappings in it"
        ) from None
    fields = {name: getattr(vector, name) for name in _VECTOR}
    stamp = dataclasses.asdict(vector.model)
    return {**fields, "source": source, "values": vector.values.cpu().clone(), "stamp": stamp}


def _vector(record: Mapping[str, Any]) -> SteeringVector:
    fields = {name: record[name] for name in _VECTOR}
    return SteeringVector(record["values"], model=ModelStamp.from_record(record["stamp"]), **fields)
