"""Files of an `Injection`: all that says how it acts comes back, and neither kind of file is taken for the other."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import steerlens as sl
from steerlens.steering.operations import OPERATIONS
from tests.steering.sites.cases import beside, ids_of, log_probs, vector_on


@pytest.mark.parametrize("site", ["resid_pre", "z"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_saved_and_loaded(any_model: Any, operation: Any, site: Any, tmp_path: Path) -> None:
    vector = 2.5 * vector_on(any_model, site)
    one = sl.Injection(vector, "all", operation, ramp=sl.Ramp([0.5, 1]), **beside(vector, operation))
    path = one.save(tmp_path / "one.safetensors")
    for other in (sl.Injection.load(str(path)), sl.load_torch(sl.save_torch(one, tmp_path / "one.pt")).injections[0]):
        for name in ("placement", "operation", "value", "ramp"):
            assert getattr(other, name) == getattr(one, name)
        for name in ("vector", "mean", "reads"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert torch.equal(mine.values, theirs.values)
                assert mine.describe() == theirs.describe()
                assert mine.model == theirs.model
        with sl.steer(any_model, one):
            wanted = log_probs(any_model, [ids_of(5)])
        with sl.steer(any_model, other):
            assert torch.equal(log_probs(any_model, [ids_of(5)]), wanted)


def test_neither_is_taken_for_the_other(any_model: Any, tmp_path: Path) -> None:
    vector = vector_on(any_model, "resid_pre")
    sl.Injection(vector, operation="reft", reads=vector).save(tmp_path / "injection")
    vector.save(tmp_path / "vector")
    with pytest.raises(sl.SteerlensError, match=r"is no steering vector but an injection.* Injection\.load"):
        sl.SteeringVector.load(tmp_path / "injection")
    with pytest.raises(sl.SteerlensError, match=r"is no steering injection but a vector; read it with SteeringVector"):
        sl.Injection.load(tmp_path / "vector")


def test_other_content_is_refused_in_one_line(any_model: Any, tmp_path: Path) -> None:
    vector = vector_on(any_model, "resid_pre")
    path = sl.Injection(vector, operation="reft", reads=vector, value=1.0).save(tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["injection"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def written(tensors: Any, text: str) -> Path:
        save_file(tensors, tmp_path / "b", {"format": "steerlens.injection.1", "injection": text})
        return tmp_path / "b"

    sl.Injection.load(written(tensors, json.dumps(record)))
    for broken in (
        {**record, "operation": "add"},
        {**record, "operation": "multiply"},
        {**record, "reads": None},
        {**record, "reads": [1]},
        {**record, "mean": record["reads"]},
        {**record, "value": "1"},
        {**record, "vector": {}},
        {**record, "ramp": 3},
        {},
        [1],
    ):
        with pytest.raises(sl.SteerlensError, match="is no (usable|steering) injection") as caught:
            sl.Injection.load(written(tensors, json.dumps(broken)))
        assert "\n" not in str(caught.value)
    for content in (tensors | {"reads": torch.full((1, 32), torch.nan)}, {"values": tensors["values"]}):
        with pytest.raises(sl.SteerlensError, match="is no usable injection"):
            sl.Injection.load(written(content, json.dumps(record)))
    (tmp_path / "c").write_bytes(pickle.dumps([1]))
    with pytest.raises(sl.SteerlensError, match="is no steering injection"):
        sl.Injection.load(tmp_path / "c")
    with pytest.raises(sl.SteerlensError, match=r"no file at .* saved with Injection\.save"):
        sl.Injection.load(tmp_path / "none")
    with pytest.raises(sl.SteerlensError, match="has no gates"):
        sl.Injection(vector, gate=sl.Gate(vector, above=0.0)).save(tmp_path / "d")
    with pytest.raises(sl.SteerlensError, match="no device 'nowhere'"):
        sl.Injection.load(path, device="nowhere")
