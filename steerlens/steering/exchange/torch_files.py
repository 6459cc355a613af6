"""PyTorch files: conditions written for programs that have PyTorch alone, and the reading of other tools' files.

A `.pt` file is a pickle, which may hold a program. Only `torch.load(weights_only=True)` is used here: it rebuilds
tensors and plain data, and refuses everything else before anything of it runs.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch

from steerlens.arguments import path_to, shown
from steerlens.errors import SteerlensError, first_line
from steerlens.steering.conditions import Condition, Injection, Steering, as_condition
from steerlens.steering.injection_files import injection_fields, injection_record
from steerlens.steering.placement import Placement
from steerlens.whole_files import write_whole

FORMAT = "steerlens.condition.1"


def save_torch(steering: Steering, path: str | Path, *, placement: Placement | None = None) -> Path:
    """The path of a PyTorch file with all that a condition does, which `attach` and `load_torch` read.

    `torch.load(path, weights_only=True)` gives a dictionary of plain data and tensors: `"format"`, `"label"`, and
    `"injections"`, each with its `vector` (`values` [pos width] as they are added, coefficient included, `layer`,
    `site`, `heads`, `stamp` of the model), `placement`, `operation`, `value`, `mean`, `reads` and `ramp`.

    Args:
        steering: a vector, an injection, a tuple of these, or a Condition.
        placement: where vectors go; by default each one's own.

    Raises:
        SteerlensError: nothing to save, a `source` that is not plain data, a path that cannot be written.
    """
    condition = as_condition(steering, placement=placement)
    if not condition.injections:
        raise SteerlensError("there is no vector to save; give at least one")
    if any(one.gate is not None for one in condition.injections):
        raise SteerlensError("a file of save_torch has no gates, which need a pass of their own; save it without")
    record = {
        "format": FORMAT,
        "label": condition.label,
        "injections": [injection_record(one) for one in condition.injections],
    }
    return write_torch(path, record, "the condition")


def load_torch(path: str | Path) -> Condition:
    """The condition of a file that `save_torch` has written. A file that holds more than plain data is refused.

    Raises:
        SteerlensError: no file, a pickle with objects in it (none of which is made), another format, damaged content.
    """
    record = read_torch(path)
    try:
        if not isinstance(record, dict):
            raise TypeError(f"it holds {shown(record)}")
        if record["format"] != FORMAT:
            raise TypeError(f"its format is {record['format']!r:.60}")
        injections = tuple(Injection(**injection_fields(one)) for one in record["injections"])
        return Condition(injections, record["label"])
    except (SteerlensError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise SteerlensError(
            f"{path} is no condition of save_torch ({first_line(error)}); for other tools' files use load_caa, "
            "load_steering_vectors or SteeringVector.of"
        ) from None


def write_torch(path: object, content: Any, what: str) -> Path:
    """The path of a file that `torch.load(weights_only=True)` reads, written whole or not at all."""
    payload = io.BytesIO()
    torch.save(content, payload)
    return write_whole(path, payload.getvalue(), what)


def existing_file(path: object, what: str) -> Path:
    """`path`, if there is a file; `what` says in the error which one is wanted.

    Raises:
        SteerlensError: there is none.
    """
    given = path_to(path)
    try:
        there = given.is_file()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise SteerlensError(f"no file at {given}; give the path of {what}")
    return given


def read_torch(path: object) -> Any:
    """The tensors and plain data of a PyTorch file, on the CPU.

    Raises:
        SteerlensError: no file, not one of PyTorch, or one with objects in it, of which none is made.
    """
    path = existing_file(path, "a PyTorch file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its unpickler meets broken bytes in many ways
        said = str(error)
        why = "it holds objects, which could run a program" if "weights_only" in said and "GLOBAL" in said else ""
        raise SteerlensError(
            f"{path} is not read: {why or 'it is no PyTorch file of tensors and plain data'} "
            "(nothing of it was executed); save the tensor alone with torch.save"
        ) from None
