"""Kill a search at random moments and start it again, until it ends: is the result what an undisturbed one gives?

    python scripts/search_kills.py --kills 30

A search on the embedded model runs in a process of its own, which is killed (SIGKILL) after a random part of the time
that a search takes here, again and again on the same storage. When the kills are used up it may end. Its table of
steps, its completions and its confirmation must be those of a search that nobody disturbed, to the last digit.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import steerlens as sl
from steerlens import demo

PROMPTS = ["I went up to my friend and said", "The weather today is", "Last year my brother told me that"]


def main() -> None:
    """Count the kills that a search survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.search is not None:
        print(searched(asked.search))
        return
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        alone = run(Path(folder) / "alone.sqlite", None)
        whole = time.monotonic() - started
        print(f"undisturbed: {alone} in {whole:.0f} s", flush=True)
        kills = ended = 0
        place = Path(folder) / "0.sqlite"
        while kills < asked.kills:
            told = run(place, chance.uniform(0.2, 1.0) * whole)
            if told is None:
                kills += 1
                continue
            check(told, alone)
            ended += 1
            place = Path(folder) / f"{ended}.sqlite"
        check(run(place, None), alone)
    print(f"{kills} kills, {ended + 1} searches ended, all with the same table: {alone}")


def run(place: Path, seconds: float | None) -> str | None:
    """What a search in a process of its own says; None if it was killed after `seconds`."""
    command = [sys.executable, __file__, "--search", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"a search failed after a kill:\n{done.stderr}")
    return done.stdout.strip()


def check(told: str | None, alone: str | None) -> None:
    """Stop with a line if the result is another one."""
    if told != alone:
        raise SystemExit(f"another result after a kill: {told} instead of {alone}")


def searched(place: Path) -> str:
    """A digest of everything a search found."""
    model = sl.load_model("demo")
    about, neutral = demo.topic_contrast("weddings")
    vectors = sl.mean_difference(model, about, neutral, layers=[3, 4, 5], token=slice(1, None))
    found = sl.search(
        model,
        vectors,
        PROMPTS,
        goal=sl.metrics.words("weddings"),
        budget=4000,
        n=4,
        max_new_tokens=8,
        confirm=5,
        storage=place,
        progress=False,
    )
    assert found.confirmed is not None
    tables = [found.frame, found.candidates, found.completions, found.confirmed.frame]
    text = "".join(table.to_csv(index=False) for table in tables)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


if __name__ == "__main__":
    main()
