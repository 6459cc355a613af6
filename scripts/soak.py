"""Hostile use for an hour: kills, Ctrl-C, full disks, shared stores, closed pipes, threads; what is lost or wrong.

    python scripts/soak.py                               # an hour
    python scripts/soak.py --minutes 5 --seed 3 --kinds kills pipes

Every disturbance comes at a random moment (seeded; the moments themselves are the clock's), in rounds of all kinds, and
what is there afterwards is compared with an undisturbed run. Children are forked, so that each costs no imports: Ctrl-C
while Python itself still imports is not tried. Prints how often each kind was tried, how often it met the work on its
way, and how much was lost, silently wrong or ended in a traceback; exits with 1 unless the last three are 0.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from soaking.counts import Count, table
from soaking.disturbances import KINDS
from soaking.work import Work


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if anything was lost, silently wrong or raw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    asked = parser.parse_args(arguments)
    import torch

    import steerlens as sl

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    torch.set_num_threads(1)  # processes with OpenMP's threads cannot be forked
    model = sl.load_model("demo", device="cpu")
    counts = soak(model, asked.kinds, minutes=asked.minutes, seed=asked.seed)
    print(table(counts))
    for kind, one in counts.items():
        for note in one.notes:
            print(f"\n{kind}: {note}")
    return 0 if all(one.clean for one in counts.values()) else 1


def soak(model: Any, kinds: list[str], *, minutes: float, seed: int) -> dict[str, Count]:
    """What each kind came to; at least one round of all, and no new disturbance after `minutes`."""
    chance, counts = random.Random(seed), {kind: Count() for kind in kinds}
    work = Work.on(model)
    until, rounds = time.monotonic() + 60 * minutes, 0
    while rounds == 0 or time.monotonic() < until:
        for kind in kinds:
            if rounds and time.monotonic() >= until:
                break
            with tempfile.TemporaryDirectory(prefix="soak-") as folder:
                KINDS[kind](work, chance, Path(folder), counts[kind])
        rounds += 1
    return counts


if __name__ == "__main__":
    sys.exit(main())
