"""PyTorch files of others: tensors and plain data are read, everything else is refused before anything of it runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from tests.conftest import plain_model


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.trace, "executed"))


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_nothing_is_unpickled(write: Callable[[Any, Path], object], tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "bad.pt"
    write({"format": "steerlens.condition.1", "injections": [Malicious(trace)]}, path)
    with pytest.raises(sl.SteerlensError, match=r"bad\.pt is not read: .*nothing of it was executed") as error:
        sl.load_torch(path)
    assert "\n" not in str(error.value)
    assert not trace.exists()
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert trace.read_text() == "executed"  # or the test would prove nothing


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(3), "is no condition of save_torch"),
        ({"format": "another"}, "its format is 'another'"),
        ({"format": "steerlens.condition.1", "injections": [{}]}, "is no condition"),
        ({"format": "steerlens.condition.1", "label": "a", "injections": [{"vector": [1]}]}, "is no condition"),
        ([], "is no condition"),
    ],
)
def test_other_content(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(sl.SteerlensError, match=words):
        sl.load_torch(tmp_path / "other.pt")


def test_broken_files(tmp_path: Path) -> None:
    for content in (b"", b"no PyTorch file", b"PK\x03\x04 broken"):
        (tmp_path / "broken.pt").write_bytes(content)
        with pytest.raises(sl.SteerlensError, match="it is no PyTorch file of tensors and plain data"):
            sl.load_torch(tmp_path / "broken.pt")
    with pytest.raises(sl.SteerlensError, match="no file at"):
        sl.load_torch(tmp_path / "none.pt")


def test_what_cannot_be_saved(any_model: Any, tmp_path: Path) -> None:
    vector = sl.SteeringVector.of(any_model, torch.ones(32), layer=1)
    with pytest.raises(sl.SteerlensError, match="no vector to save"):
        sl.save_torch(None, tmp_path / "a.pt")
    with pytest.raises(sl.SteerlensError, match="cannot write the condition"):
        sl.save_torch(vector, tmp_path / "none" / "a.pt")
    odd = sl.SteeringVector(vector.values, 1, vector.model, source={"method": object()})
    with pytest.raises(sl.SteerlensError, match="no plain data"):
        sl.save_torch(odd, tmp_path / "a.pt")
    gated = sl.Injection(vector, gate=sl.Gate(vector, above=0.0))
    with pytest.raises(sl.SteerlensError, match="has no gates"):
        sl.save_torch(gated, tmp_path / "a.pt")
    with pytest.raises(sl.SteerlensError, match="reads prompts in a pass of its own"):
        sl.attach(plain_model("gpt2"), gated)
    assert list(tmp_path.iterdir()) == []
