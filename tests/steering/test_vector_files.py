"""Files of a `SteeringVector`: what is saved comes back, and no other file is taken for one."""

from __future__ import annotations

import json
import math
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import steerlens as sl
from steerlens.steering import check_vector
from tests.steering.made_up_vectors import STAMP, vector


@pytest.mark.parametrize("placement", ["front", "all", 2, -1])
def test_saved_and_loaded(tmp_path: Path, placement: Any) -> None:
    a = (2.5 * vector(1, label="Ünï ☃ − 雪", source={"prompts": ["Lové", " "], "n": 3})).on(placement)
    path = a.save(tmp_path / "a.safetensors")
    assert path == tmp_path / "a.safetensors"
    b = sl.SteeringVector.load(str(path))
    assert torch.equal(a.values, b.values)
    assert b.describe() == a.describe()
    assert b.model == a.model
    assert isinstance(b.placement, type(placement))
    assert os.listdir(tmp_path) == ["a.safetensors"], "no temporary file is left"


def test_a_loaded_vector_steers_its_model(any_model: Any, tmp_path: Path) -> None:
    love = sl.actadd(any_model, "Love", "Hate", layer=1)
    loaded = sl.SteeringVector.load((5 * love).save(tmp_path / "love.safetensors"))
    check_vector(any_model, loaded)
    ids = torch.tensor([[0, 5, 6, 7]])
    with sl.steer(any_model, 5 * love):
        wanted = any_model(ids)
    with sl.steer(any_model, loaded):
        assert torch.equal(any_model(ids), wanted)


def test_saved_views_and_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    vector(3).save(path)
    view = sl.SteeringVector(torch.arange(48.0).reshape(8, 6).T, layer=0, model=STAMP).at(2)
    view.save(path)
    assert torch.equal(sl.SteeringVector.load(path).values, view.values)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    mode = stat.S_IMODE(vector().save(tmp_path / "a").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    for path, reason in {
        tmp_path / "no" / "such" / "a": "does not exist; make it first",
        tmp_path / "folder": "it is a folder; give a file name in it",
        tmp_path / "file" / "a": "not a directory; choose another path",
        tmp_path / ("x" * 300): "file name too long; choose another path",
    }.items():
        with pytest.raises(sl.SteerlensError, match=f"cannot write the vector to .*{reason}"):
            vector().save(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"], "nothing half-written"

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(sl.SteerlensError, match="no space left on device; choose another path"):
        vector().save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.trace, "unpickled"))


@pytest.mark.parametrize("how", ["pickle", "torch", "torch legacy", "numpy"])
def test_a_pickle_is_never_opened(tmp_path: Path, how: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "vector.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    elif how == "numpy":
        with path.open("wb") as file:
            np.save(file, np.array([Bomb(trace)], dtype=object), allow_pickle=True)
    else:
        torch.save(Bomb(trace), path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(sl.SteerlensError, match="is no steering vector"):
        sl.SteeringVector.load(path)
    assert not trace.exists()
    if how == "pickle":
        pickle.loads(path.read_bytes())
        assert trace.read_text() == "unpickled", "the bomb was none: the test above shows nothing"


def header(**changes: Any) -> dict[str, str]:
    record = {"stamp": {**vars(STAMP), "sketch": list(STAMP.sketch)}, **vector().describe(), **changes}
    return {"format": "steerlens.vector.1", "vector": json.dumps(record)}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"format": "steerlens.vector.1"},
        {"format": "steerlens.vector.1", "vector": "{"},
        {"format": "steerlens.vector.1", "vector": "[]"},
        {"format": "steerlens.vector.1", "vector": "null"},
        {"format": "steerlens.vector.1", "vector": "{}"},
        {**header(), "format": "steerlens.vector.99"},
        header(stamp=None),
        header(stamp={"name": "x"}),
        header(stamp={**vars(STAMP), "extra": 1}),
        header(stamp={**vars(STAMP), "sketch": None}),
        header(stamp={**vars(STAMP), "n_layers": "4"}),
        header(layer=99),
        header(layer="1"),
        header(layer=None),
        header(placement="nowhere"),
        header(placement=None),
        header(coeff="big"),
        header(source=[1]),
        header(label=5),
    ],
)
def test_safetensors_that_are_no_vector(tmp_path: Path, metadata: Any) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"values": torch.ones(3, 8)}, path, metadata)
    with pytest.raises(sl.SteerlensError) as caught:
        sl.SteeringVector.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "values", [torch.ones(3, 9), torch.full((3, 8), math.nan), torch.ones(0, 8), torch.ones(2, 3, 8)]
)
def test_damaged_values(tmp_path: Path, values: torch.Tensor) -> None:
    save_file({"values": values}, tmp_path / "a", header())
    with pytest.raises(sl.SteerlensError):
        sl.SteeringVector.load(tmp_path / "a")
    save_file({"other": torch.ones(3, 8)}, tmp_path / "b", header())
    with pytest.raises(sl.SteerlensError, match="is no steering vector"):
        sl.SteeringVector.load(tmp_path / "b")


def test_files_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(sl.SteerlensError, match="no file at"):
        sl.SteeringVector.load(tmp_path / "nothing")
    with pytest.raises(sl.SteerlensError, match="no file at"):
        sl.SteeringVector.load(tmp_path)
    for number, content in enumerate([b"", b"\0" * 7, b"hello", os.urandom(200), b"\xff" * 8 + b"{}"]):
        path = tmp_path / str(number)
        path.write_bytes(content)
        with pytest.raises(sl.SteerlensError, match="is no steering vector"):
            sl.SteeringVector.load(path)
    vector().save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for end in range(0, len(whole), 50):
        (tmp_path / "part").write_bytes(whole[:end])
        with pytest.raises(sl.SteerlensError, match="is no steering vector"):
            sl.SteeringVector.load(tmp_path / "part")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_loading_to_a_device_that_is_not_there(tmp_path: Path) -> None:
    path = vector().save(tmp_path / "a")
    with pytest.raises(sl.SteerlensError, match="cuda"):
        sl.SteeringVector.load(path, device="cuda")
