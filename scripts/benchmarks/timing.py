"""Interleaved timing: the machine's noise hits all contenders alike, and only ratios of one round are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Seconds = Mapping[str, list[float]]


def interleaved(contenders: Mapping[str, Callable[[], float | None]], *, rounds: int, warm: bool = True) -> Seconds:
    """Seconds of every contender in every round; the order turns round every time, a first untimed round if `warm`.

    A contender that works elsewhere returns its own seconds; for others the clock runs here, synchronised.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-1 if warm else 0, rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            synchronise()
            started = time.perf_counter()
            own = contenders[name]()
            synchronise()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started if own is None else own)
    return seconds


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compared(work: str, seconds: Seconds, *, ours: str, against: str, note: str = "", goal: str = "") -> dict[str, Any]:
    """One line of the results: how many times as fast `ours` is, median of the rounds and their range."""
    ratios = [theirs / mine for theirs, mine in zip(seconds[against], seconds[ours], strict=True)]
    return {
        "work": work,
        "against": against,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "seconds": statistics.median(seconds[ours]),
        "seconds against": statistics.median(seconds[against]),
        "rounds": len(ratios),
        "goal": goal,
        "note": note,
    }
