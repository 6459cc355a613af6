"""Vectors on the hub: pushed to one on this machine and pulled back by another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.steering.vector_card import vector_card
from tests.steering.fake_hub import COMMIT, Hub, running_hub


def elsewhere(hub: Hub, folder: Path, program: str) -> list[str]:
    """The lines that a program prints in another process, for which `hub` is the hub."""
    done = subprocess.run(
        [sys.executable, "-c", "import steerlens as sl\n" + program],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder / "cache"),
            "HF_TOKEN": "hf_of_the_test",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NO_PROXY": "127.0.0.1",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_a_vector_travels_through_the_hub(any_model: Any, tmp_path: Path) -> None:
    love = 3 * sl.actadd(any_model, "I love `it`", "I hate it", layer=1)
    love.save(tmp_path / "love.safetensors")
    program = """
love = sl.SteeringVector.load("love.safetensors")
print(love.push("user/love", controls="Random vectors: nothing.", private=True, message="The vector"))
sl.SteeringVector.pull("user/love").save("back.safetensors")
for name, vector in (("user/none", None), ("user/empty", None)):
    try:
        sl.SteeringVector.pull(name)
    except sl.SteerlensError as error:
        print(error)
"""
    with running_hub() as hub:
        hub.files["user/empty"] = {}
        url, none, empty = elsewhere(hub, tmp_path, program)
    assert url == f"{hub.url}/user/love/commit/{COMMIT}"
    assert set(hub.files["user/love"]) == {"vector.safetensors", "README.md"}
    assert hub.private["user/love"] and hub.messages == ["The vector"]
    assert set(hub.tokens) == {"Bearer hf_of_the_test"}
    back = sl.SteeringVector.load(tmp_path / "back.safetensors")
    assert torch.equal(back.values, love.values)
    assert (back.describe(), back.model) == (love.describe(), love.model)
    card = hub.files["user/love"]["README.md"].decode()
    for words in (
        "library_name: steerlens",
        "I love `it`",
        "Random vectors: nothing.",
        'pull("user/love")',
        "layer: 1",
    ):
        assert words in card
    assert none.startswith("cannot pull a vector from user/none") and empty.startswith("cannot pull a vector from")


def test_what_the_hub_refuses_is_one_line(any_model: Any, tmp_path: Path) -> None:
    sl.actadd(any_model, "I love it", "I hate it", layer=1).save(tmp_path / "love.safetensors")
    program = """
try:
    sl.SteeringVector.load("love.safetensors").push("user/love")
except sl.SteerlensError as error:
    print(error)
"""
    with running_hub() as hub:
        hub.refuses = 403
        (line,) = elsewhere(hub, tmp_path, program)
    assert line.startswith("cannot push to user/love: ") and "403" in line
    assert not hub.files


def test_offline_and_names(any_model: Any) -> None:
    vector = sl.actadd(any_model, "I love it", "I hate it", layer=1)
    for use in (vector.push, sl.SteeringVector.pull):
        with pytest.raises(sl.SteerlensError, match="is no repository of the hub; give it as 'user/name'"):
            use("no-user")
        with pytest.raises(sl.SteerlensError, match=r"cannot pu(sh|ll).*user/name"):
            use("user/name")  # the tests run offline


def test_the_card_of_anything(any_model: Any) -> None:
    import dataclasses

    vector = sl.actadd(any_model, "a", "b", layer=1)
    record = {"stamp": dataclasses.asdict(vector.model), **vector.describe()}
    odd = {
        **record,
        "label": "# <script>\n---\n[x](y)",
        "source": {"method": "pca", "contrast": "```\n````", "template": "abc", "draws": 3},
    }
    card = vector_card(odd, norms=[1.0, 2.0], repository="user/name")
    assert "\n# \\# \\<script\\> --- \\[x\\](y)\n" in card
    assert "`````json" in card and '"draws": 3' in card and "\nabc\n" in card
    assert "None are recorded" in card
    assert "base_model" not in card
    named = {**record, "stamp": {**record["stamp"], "name": "meta-llama/Llama-3.1-8B"}}
    assert "\nbase_model: meta-llama/Llama-3.1-8B\n" in vector_card(named, norms=[1.0], repository="user/name")
