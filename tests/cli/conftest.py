"""`typed`: a command in this process; `shell`: one in a process of its own, with its streams as the test wants them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steerlens import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The exit code of `steerlens …`, in this process."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["steerlens", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """A shell line in which `$STEERLENS` is the command, run in an empty folder."""

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        folder = tmp_path / "here"
        folder.mkdir(exist_ok=True)
        own: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        own |= {"STEERLENS": f"{sys.executable} -m steerlens.cli", **environment}
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=folder, env=own, capture_output=True, timeout=600, check=False
        )

    return run
