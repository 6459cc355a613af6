"""`steerlens get`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steerlens.models import smollm2


def test_what_it_asks_for(typed: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(smollm2, "forget", lambda: asked.append("forget"))

    def fetch(file: Path | None, *, tell: Callable[[str], None]) -> Path:
        asked.append(file)
        tell("downloading")
        return tmp_path

    monkeypatch.setattr(smollm2, "fetch", fetch)
    assert typed("get", "smollm2") == 0
    assert typed("get", "smollm2", "--file", "a.whl", "--again") == 0
    assert asked == [None, "forget", Path("a.whl")]
    out, err = capsys.readouterr()
    assert str(tmp_path) in out and "downloading" in err


def test_another_name(typed: Callable[..., int], capsys) -> None:
    assert typed("get", "gpt2") == 2
    assert "nothing is called 'gpt2' here; use steerlens get smollm2" in capsys.readouterr().err
