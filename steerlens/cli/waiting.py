"""`choose_waiting`: how PyTorch's threads wait for each other, chosen by what else the machine is doing."""

from __future__ import annotations

import os
import time
from pathlib import Path

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
"""Threads give their core away while they wait. PyTorch's (OpenMP's) would keep it busy."""

_BUSY = 0.5
"""Cores that other work keeps busy, from which on it pays to wait passively."""


def choose_waiting() -> None:
    """Sets `PASSIVE` in the environment where other work is on the cores; what a user has set stands.

    Beside two busy processes on two cores, spinning threads sampled at 0.17 of their idle rate and passive ones at
    0.49; on idle cores passive ones cost 30 % (embedded model, `scripts/busy_machine.py`). So neither suits both.
    Read when torch is imported: to be called before.
    """
    if not any(name in os.environ for name in PASSIVE) and busy_cores() >= _BUSY:
        os.environ.update(PASSIVE)


def busy_cores(seconds: float = 0.1) -> float:
    """How many cores other work keeps busy: over the next `seconds` where Linux counts, else the load average.

    The load average alone would count the command before this one. 0 where nobody counts.
    """
    try:
        before = _ticks()
        time.sleep(seconds)
        used, all_ticks = (after - earlier for after, earlier in zip(_ticks(), before, strict=True))
        return used / max(all_ticks, 1) * (os.cpu_count() or 1)
    except (OSError, ValueError):
        pass
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has none
        return 0.0


def _ticks() -> tuple[int, int]:
    """Ticks of the clock that all cores were busy, and in all, since the machine was started."""
    with Path("/proc/stat").open() as lines:
        # user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user and nice already
        ticks = [int(word) for word in lines.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
