"""Where a SQLite file may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs.sqlite_file.cats import lie_on


@pytest.fixture(params=["disk", "network"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file name on a disk of this machine, or, as far as the file can know, on a file server."""
    lie_on(request.param, tmp_path, monkeypatch)
    return tmp_path / "cats"
