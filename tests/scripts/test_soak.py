"""The soak finds what it looks for, and one round of it finds nothing."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import soak
from soaking import counts, disturbances, work


@pytest.fixture
def one_thread() -> Any:
    """Processes with OpenMP's threads cannot be forked."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_one_round_of_all_kinds_is_clean(demo: Any, one_thread: None) -> None:
    found = soak.soak(demo, list(disturbances.KINDS), minutes=0, seed=1)
    assert {kind: one.notes for kind, one in found.items() if not one.clean} == {}
    assert all(one.tried > 0 for one in found.values())


def test_what_is_lost_wrong_or_raw_is_counted(
    demo: Any, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soaked = work.Work.on(demo)
    soaked.expected["sweep"] = soaked.expected["sweep"].assign(completion="another")
    found = counts.Count()
    disturbances.two_processes(soaked, random.Random(0), tmp_path, found)
    assert (found.tried, found.silent, found.clean) == (2, 2, False)

    monkeypatch.setattr(disturbances, "command", lambda *line: print(1 / 0))
    (tmp_path / "pipes").mkdir()
    found = counts.Count()
    disturbances.pipes(soaked, random.Random(0), tmp_path / "pipes", found)
    assert (found.lost, found.tracebacks) == (1, 1) and "ZeroDivisionError" in found.notes[0]
    assert "pipes" in counts.table({"pipes": found})
