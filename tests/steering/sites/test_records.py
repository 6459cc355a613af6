"""Sites and operations on record: vector files and run keys tell them apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import SITES
from tests.steering.sites.cases import vector_like, vector_on


@pytest.mark.parametrize("site", SITES)
def test_files_keep_the_site(any_model: Any, site: Any, tmp_path: Any) -> None:
    vector = vector_on(any_model, site, span=2)
    back = sl.SteeringVector.load(vector.save(tmp_path / "v.safetensors"))
    assert (back.site, back.heads) == (site, vector.heads)
    assert torch.equal(back.values, vector.values)


def test_files_of_version_1_are_read(any_model: Any, tmp_path: Any) -> None:
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    vector = vector_on(any_model, "resid_pre")
    with safe_open(vector.save(tmp_path / "new"), framework="pt") as file:
        record, values = json.loads(file.metadata()["vector"]), file.get_tensor("values")
    del record["site"]
    save_file({"values": values}, tmp_path / "old", {"format": "steerlens.vector.1", "vector": json.dumps(record)})
    old = sl.SteeringVector.load(tmp_path / "old")
    assert (old.site, old.describe()) == ("resid_pre", vector.describe())


def test_run_keys_tell_sites_and_operations_apart(any_model: Any) -> None:
    from steerlens.runs.run_keys import run_key

    vector, other = vector_on(any_model, "resid_pre"), vector_on(any_model, "resid_post")
    mean = vector_like(vector, 3)
    injections = [
        sl.Injection(vector),
        sl.Injection(other),
        sl.Injection(vector, operation="ablate"),
        sl.Injection(vector, operation="clamp"),
        sl.Injection(vector, operation="clamp", value=1.0),
        sl.Injection(vector, operation="affine", mean=mean),
        sl.Injection(vector, operation="affine", mean=2 * mean),
        sl.Injection(vector, operation="reft", reads=mean),
        sl.Injection(vector, operation="reft", reads=2 * mean),
        sl.Injection(vector, operation="reft", reads=mean, value=1.0),
    ]
    keys = [run_key(sl.Condition((one,)), job="job") for one in injections]
    assert len(set(keys)) == len(keys)
