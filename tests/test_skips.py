"""A run with --allowed-skips fails where a test skips for a reason that is not allowed here, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.skips import SkipWatch, circumstances

SKIPPING = """
import pytest

from tests.skips import pytest_addoption, pytest_configure

@pytest.mark.skipif(True, reason="no such device")
def test_one():
    pass

def test_two():
    pytest.skip("nobody installed it")

def test_three():
    pass
"""


@pytest.mark.parametrize(
    ("reasons", "when", "status", "told"),
    [
        (["no such device", "nobody"], "TransformerLens 3", {3: 0, 4: 1}, None),
        (["no such device", "nobody"], "TransformerLens 4", {3: 1, 4: 0}, None),
        (["no such device"], None, {3: 1, 4: 1}, "NOT ALLOWED   1  test_skipping.py: nobody installed it"),
    ],
)
def test_reasons_are_allowed_in_their_circumstance(
    tmp_path: Path, reasons: list[str], when: str | None, status: dict[int, int], told: str | None
) -> None:
    here = circumstances(tmp_path)
    version = 3 if here["TransformerLens 3"] else 4
    when = when or f"TransformerLens {version}"
    entries = "".join(f'[[skip]]\nreason = "{reason}"\nwhen = "{when}"\n' for reason in reasons)
    (tmp_path / "allowed.toml").write_text(entries)
    (tmp_path / "conftest.py").write_text("from tests.skips import pytest_addoption, pytest_configure\n")
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--allowed-skips", "allowed.toml", "."]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status[version], done.stdout + done.stderr
    assert told is None or told in done.stdout
    assert "1 passed, 2 skipped" in done.stdout


def test_the_list_can_be_read() -> None:
    watch = SkipWatch.read(ROOT / "tests" / "allowed_skips.toml", circumstances(ROOT / "nothing"))
    assert watch.allowed
    assert not watch.may("kaleido is not installed")
