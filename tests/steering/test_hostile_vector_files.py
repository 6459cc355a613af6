"""Hostile files of steering vectors: each is refused in one line, or read as harmless data; nothing in them is run."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import steerlens as sl
from steerlens.steering import check_vector
from tests.steering.made_up_vectors import STAMP, vector

RECORD = {"stamp": {**vars(STAMP), "sketch": list(STAMP.sketch)}, **vector().describe()}
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000
WEIGHTS = {"form": "raw", "exact": True}


def file_of(path: Path, text: str) -> Path:
    save_file({"values": torch.ones(3, 8)}, path, {"format": "steerlens.vector.2", "vector": text})
    return path


def record(**changes: Any) -> str:
    return json.dumps({**RECORD, **changes})


def stamped(**changes: Any) -> str:
    return record(stamp={**RECORD["stamp"], **changes})


def written(name: str, value: str) -> str:
    """The record with one more entry, written as it stands; of two entries of a name, JSON's readers take the last."""
    return f'{record()[:-1]}, "{name}": {value}}}'


def test_the_plain_record_is_read(tmp_path: Path) -> None:
    assert sl.SteeringVector.load(file_of(tmp_path / "a.safetensors", record())).label == "a"
    assert sl.SteeringVector.load(file_of(tmp_path / "a.safetensors", written("label", '"b"'))).label == "b"


@pytest.mark.parametrize(
    "text",
    {
        "deep": DEEP,
        "deep object": '{"a": ' * 100_000 + "1" + "}" * 100_000,
        "deep source": written("source", DEEP),
        "coefficient of 5,000 digits": written("coeff", LONG),
        "layer of 4,000 digits": written("layer", LONG[:4000]),
        "coefficient 1e400": written("coeff", "1e400"),
        "coefficient -1e400": written("coeff", "-1e400"),
        "coefficient NaN": written("coeff", "NaN"),
        "coefficient Infinity": written("coeff", "-Infinity"),
        "position of 400 digits": written("heads", LONG[:400]),
        "sketch of 400 digits": stamped(sketch=[10**400] * 16),
        "sketch as text": stamped(sketch="abcdefghijklmnop"),
        "sketch of lists": stamped(sketch=[[1.0]] * 16),
        "weights as text": stamped(weights="x"),
        "weights of text": stamped(weights={**WEIGHTS, "values": "abc"}),
        "weights without values": stamped(weights=WEIGHTS),
        "name of half a pair": stamped(name="\ud800"),
        "no record": '"steerlens"',
    }.items(),
    ids=lambda item: item[0],
)
def test_refused_in_one_line(tmp_path: Path, text: tuple[str, str]) -> None:
    path = file_of(tmp_path / "a.safetensors", text[1])
    with pytest.raises(sl.SteerlensError) as caught:
        sl.SteeringVector.load(path)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1600
    assert str(path) in line


@pytest.mark.parametrize(
    "numbers", ["NaN", "Infinity", "1e400", "1e308", "0.0", "true"], ids=lambda number: f"sketch of {number}"
)
def test_no_sketch_passes_for_that_of_another_model(tmp_path: Path, numbers: str) -> None:
    """A sketch of infinity is near to everything if nothing guards the comparison."""
    sketch = ", ".join([numbers] * 16)
    text = record().replace(json.dumps(RECORD["stamp"]["sketch"]), f"[{sketch}]")
    assert numbers in text
    path = file_of(tmp_path / "a.safetensors", text)
    try:
        loaded = sl.SteeringVector.load(path)
    except sl.SteerlensError as error:
        assert str(path) in str(error)
    else:
        assert loaded.model.difference(STAMP) is not None
        assert STAMP.difference(loaded.model) is not None


@pytest.mark.parametrize("numbers", ["NaN", "1e400"])
def test_no_sketch_of_weights_passes_for_that_of_another_model(demo: Any, tmp_path: Path, numbers: str) -> None:
    path = sl.actadd(demo, "Love", "Hate", layer=1).save(tmp_path / "a.safetensors")
    with safe_open(str(path), framework="pt") as file:
        plain, values = json.loads(file.metadata()["vector"]), file.get_tensor("values")
    text = json.dumps(plain)
    for name in ("weights", "origin"):
        many = ", ".join([numbers] * len(plain["stamp"][name]["values"]))
        text = text.replace(json.dumps(plain["stamp"][name]["values"]), f"[{many}]")
    assert numbers in text
    save_file({"values": values}, path, {"format": "steerlens.vector.2", "vector": text})
    with pytest.raises(sl.SteerlensError):
        check_vector(demo, sl.SteeringVector.load(path))


@pytest.mark.parametrize(
    "label", ["x" * 10_000_000, "\x1b[31mred\x1b]0;title\x07\r\n\u202e", "\ud800", "\0", "[bold]x[/bold]"]
)
def test_labels_are_shown_as_harmless_text(tmp_path: Path, label: str) -> None:
    loaded = sl.SteeringVector.load(file_of(tmp_path / "a.safetensors", record(label=label)))
    for shown in (loaded.label, loaded.title, (2 * loaded).title, repr(loaded)):
        assert len(shown) < 1200
        assert not any(character in shown for character in "\x1b\x07\r\n\0\u202e\ud800")
    again = sl.SteeringVector.load(loaded.save(tmp_path / "b.safetensors"))
    assert again.label == loaded.label


def test_a_large_source_is_data(tmp_path: Path) -> None:
    source = {"\ud800": "x" * 10_000_000, "prompts": ["\x1b[31m"]}
    loaded = sl.SteeringVector.load(file_of(tmp_path / "a.safetensors", record(source=source)))
    assert loaded.source == source
    assert len(repr(loaded)) < 1000


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.trace,))


def test_a_pickle_by_the_name_of_safetensors_is_not_opened(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "vector.safetensors"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(sl.SteerlensError, match="is no steering vector"):
        sl.SteeringVector.load(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the bomb was none: the test above shows nothing"


@pytest.mark.parametrize(
    "values",
    [
        torch.full((3, 8), math.inf),
        torch.full((3, 8), 1e300, dtype=torch.float64),
        torch.ones(3, 8, dtype=torch.bool),
        torch.ones(3, 8, dtype=torch.int64),
        torch.tensor(1.0),
    ],
    ids=["infinite", "too large", "bool", "whole numbers", "one number"],
)
def test_values_that_are_none(tmp_path: Path, values: torch.Tensor) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"values": values}, path, {"format": "steerlens.vector.2", "vector": record()})
    with pytest.raises(sl.SteerlensError, match="steering vector"):
        sl.SteeringVector.load(path)
