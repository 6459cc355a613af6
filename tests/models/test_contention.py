"""Contention is noticed where it slows us down, and said once."""

from __future__ import annotations

import os
import warnings
from itertools import count
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import contention


@pytest.fixture
def contended(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Two threads on a machine with four cores, a load of 9, and nothing chosen."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(contention, "_told", count())
    return monkeypatch


def said(times: int = 3, device: str = "cpu") -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            contention.notice_contention(device)
    return [str(one.message) for one in caught]


def test_it_is_said_once_in_one_line_with_what_to_do(contended: pytest.MonkeyPatch) -> None:
    (line,) = said()
    assert "9.0 on 4 cores" in line and "\n" not in line
    assert "OMP_WAIT_POLICY=PASSIVE" in line and "torch.set_num_threads(1)" in line


def test_sampling_notices(contended: pytest.MonkeyPatch, demo: Any) -> None:
    with pytest.warns(UserWarning, match="load average"):
        sl.generate(demo, "I", n=1, max_new_tokens=1)


def test_it_is_not_said_without_need(contended: pytest.MonkeyPatch) -> None:
    assert said(device="cuda") == []
    for change in (
        lambda m: m.setenv("OMP_WAIT_POLICY", "ACTIVE"),
        lambda m: m.setattr(torch, "get_num_threads", lambda: 1),
        lambda m: m.setattr(os, "getloadavg", lambda: (4.0, 9.0, 9.0)),
        lambda m: m.delattr(os, "getloadavg"),
    ):
        with contended.context() as m:
            change(m)
            assert said() == []
    assert len(said()) == 1
