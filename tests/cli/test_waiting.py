"""Commands choose how threads wait by what else the machine is doing, and leave what a user has set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steerlens.cli import waiting


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing is chosen; as it was afterwards."""
    for name in waiting.PASSIVE:
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


def chosen_names() -> dict[str, str]:
    return {name: os.environ[name] for name in waiting.PASSIVE if name in os.environ}


@pytest.mark.parametrize(("busy", "chosen"), [(0.0, {}), (0.4, {}), (0.6, waiting.PASSIVE), (7.0, waiting.PASSIVE)])
def test_threads_wait_passively_only_beside_other_work(
    bare: pytest.MonkeyPatch, busy: float, chosen: dict[str, str]
) -> None:
    bare.setattr(waiting, "busy_cores", lambda: busy)
    waiting.choose_waiting()
    assert chosen_names() == chosen


@pytest.mark.parametrize("name", list(waiting.PASSIVE))
def test_what_is_set_stands(bare: pytest.MonkeyPatch, name: str) -> None:
    bare.setattr(waiting, "busy_cores", lambda: 9.0)
    bare.setenv(name, "mine")
    waiting.choose_waiting()
    assert chosen_names() == {name: "mine"}


def test_busy_cores_are_counted_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([(100, 1000), (130, 1040)])
    monkeypatch.setattr(waiting, "_ticks", lambda: next(looks))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert waiting.busy_cores(0) == 3.0


def test_ticks_are_read_as_linux_writes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  10 20 30 400 50 6 7 8 5 5\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    monkeypatch.setattr(waiting, "Path", lambda _: tmp_path / "stat")
    assert waiting._ticks() == (10 + 20 + 30 + 6 + 7 + 8, 531)


def test_elsewhere_the_load_average_is_taken_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> tuple[int, int]:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(waiting, "_ticks", missing)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 1.0, 1.0), raising=False)
    assert waiting.busy_cores(0) == 2.5
    monkeypatch.delattr(os, "getloadavg")
    assert waiting.busy_cores(0) == 0.0
