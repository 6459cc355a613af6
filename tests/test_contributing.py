"""The code of CONTRIBUTING.md runs as it stands, and the files it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_example_of_a_method_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(code) == 2
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    assert "median difference" in capsys.readouterr().out


def test_every_place_named_exists() -> None:
    places = [place for place in re.findall(r"`((?:steerlens|tests|scripts)/[\w/.]*)`", TEXT) if "NAME" not in place]
    assert places
    for place in places:
        assert (ROOT / place).exists(), place
