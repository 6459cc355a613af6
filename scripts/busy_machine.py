"""What it costs on idle cores, and gains beside other work, that PyTorch's threads wait without spinning.

    python scripts/busy_machine.py                # the embedded model, five rounds
    python scripts/busy_machine.py --busy 4 --rounds 9

Samples the same completions in processes of their own: with the system's way of waiting, with OMP_WAIT_POLICY=PASSIVE
and GOMP_SPINCOUNT=0, and with one thread; each with no other work of ours and beside `--busy` processes that compute
without end. Rounds alternate between them. Prints median tokens per second with their range, and the shares. The load
average at the start is printed with them: on a machine that is not idle, the figures called idle are not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS: dict[str, dict[str, str]] = {
    "spinning": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SAMPLE = """
import sys, time, warnings
import steerlens as sl
warnings.simplefilter("ignore")
model, n = sl.load_model("demo", device="cpu"), int(sys.argv[1])
vector = 4 * sl.actadd(model, " weddings", " ", layer=2)
def run(n):
    return sl.generate(model, "I went up to my friend and said", vector, n=n, max_new_tokens=20, seed=0, progress=False)
run(2)
started = time.perf_counter()
frame = run(n)
print(frame["n_tokens"].sum() / (time.perf_counter() - started))
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=2, help="other processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=60, help="completions of 20 tokens")
    asked = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    rates: dict[tuple[str, int], list[float]] = {(way, busy): [] for way in WAYS for busy in (0, asked.busy)}
    for _ in range(asked.rounds):
        for (way, busy), found in rates.items():
            with others(busy):
                found.append(rate(WAYS[way], asked.n))
    median = {key: statistics.median(found) for key, found in rates.items()}
    idle = median["spinning", 0]
    print(f"{'threads wait':14s}{'others':>8s}{'tokens/s':>10s}{'lowest':>10s}{'highest':>10s}{'of idle':>10s}")
    for (way, busy), found in rates.items():
        share = median[way, busy] / idle
        print(f"{way:14s}{busy:8d}{median[way, busy]:10.0f}{min(found):10.0f}{max(found):10.0f}{share:10.2f}")


def rate(way: dict[str, str], n: int) -> float:
    """Tokens per second of one process."""
    names = {name for one in WAYS.values() for name in one}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PYTHONPATH": str(ROOT), **way}
    command = [sys.executable, "-c", SAMPLE, str(n)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextlib.contextmanager
def others(count: int) -> Iterator[None]:
    """`count` processes that compute while the block lasts."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


if __name__ == "__main__":
    main()
