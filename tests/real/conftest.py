"""SmolLM2-135M-Instruct, a model that others trained, for the tests in this folder alone; they skip where it is not.

`make smollm2` fetches it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import smollm2

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("real")


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The model's directory in Hugging Face layout."""
    try:
        return smollm2.directory()
    except sl.SteerlensError as error:
        pytest.skip(str(error))


@cache
def _plain(folder: Path, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().requires_grad_(False)


@cache
def _loaded(folder: Path, kind: str, dtype: str) -> Any:
    processing = not kind.endswith("raw")
    bridge = kind.startswith("bridge")
    return sl.load_model("smollm2", device="cpu", dtype=dtype, bridge=bridge, processing=processing)


@pytest.fixture(scope="session")
def plain(smollm2_folder: Path) -> Any:
    """A function from a dtype to the plain Hugging Face model. Shared: nothing may change it."""
    return lambda dtype="float32": _plain(smollm2_folder, dtype)


@pytest.fixture(scope="session")
def real(smollm2_folder: Path) -> Any:
    """A function from a kind and a dtype to the model as steerlens loads it. Shared: nothing may change it."""
    return lambda kind="bridge-raw", dtype="float32": _loaded(smollm2_folder, kind, dtype)
