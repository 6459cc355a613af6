"""The embedded model is read without a network and without noise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from steerlens.models import DEMO_MODEL_PATH, is_bridge, load_model
from tests.conftest import HAS_HOOKED_TRANSFORMER, ROOT


def test_demo(demo: Any) -> None:
    assert demo.cfg.model_name == "demo"
    assert is_bridge(demo) != HAS_HOOKED_TRANSFORMER
    assert str(demo.cfg.device) == "cpu"
    assert str(demo.cfg.dtype).endswith("float32")
    assert demo.to_string(demo.to_tokens("Weddings are fun", prepend_bos=False)[0]) == "Weddings are fun"


def test_demo_needs_no_network_and_leaves_no_noise() -> None:
    """In a process of its own whose every connection attempt is an error; nothing is printed, on either stream."""
    script = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("a connection was tried")
socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse
import steerlens as sl
model = sl.load_model("demo", device="cpu")
love = sl.actadd(model, "Love", "Hate", layer=2)
with sl.steer(model, love):
    model(model.to_tokens("I hate you because"))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    noise = [line for line in done.stderr.splitlines() if "warn" not in line.lower() or "steerlens" in line]
    assert noise == []


def test_missing_demo_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("steerlens.models.checkpoints.DEMO_MODEL_PATH", tmp_path)
    with pytest.raises(sl.SteerlensError, match=r"embedded model is missing.*train_demo_model\.py"):
        load_model("demo")


def test_demo_path_is_in_the_package() -> None:
    assert Path(sl.__file__).parent in DEMO_MODEL_PATH.parents
