"""The kinds of disturbance: each takes the work, a source of chance, an empty folder and its count."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

import steerlens as sl

from .children import FINE, OUTSIDE, RAISED, TOLD, child, done, ended, raw
from .counts import Count
from .work import COMMAND, Work, broken_files, command, different, finished

Disturbance = Callable[[Work, random.Random, Path, Count], None]
# Unsteered, and steered and random at two layers, twice each.
ROWS = 2 * 5


def kills(work: Work, chance: random.Random, folder: Path, count: Count) -> None:
    """A stored sweep is killed up to three times, and goes on."""
    store, before = folder / "runs.sqlite", 0
    for _ in range(chance.randint(1, 3)):
        number = child(lambda: work.sweep(store), folder / "errors")
        time.sleep(chance.uniform(0, 1.5 * work.seconds["sweep"]))
        os.kill(number, signal.SIGKILL)
        status = ended(number)
        count.tried += 1
        count.met += status == -signal.SIGKILL
        if status in (TOLD, RAISED):
            count.note("tracebacks", (folder / "errors").read_text(errors="replace"))
        if (now := finished(store)) < before:
            count.note("lost", f"{before} conditions were finished, {now} are left")
        before = now
    with count.nothing_raised("going on after a kill"):
        if why := different(work.sweep(store), work.expected["sweep"]):
            count.note("silent", why)


def interrupts(work: Work, chance: random.Random, folder: Path, count: Count) -> None:
    """Ctrl-C in a call: only KeyboardInterrupt comes out, nothing stays on the model, the next call is as ever."""
    del folder
    for name in ("generate", "actadd", "sweep"):
        hooks = work.hooks()
        count.tried += 1
        with count.nothing_raised(f"Ctrl-C in {name}"):
            count.met += _interrupted(getattr(work, name), chance.uniform(0, 1.2 * work.seconds[name]))
        if work.hooks() != hooks:
            count.note("silent", f"hooks stay after Ctrl-C in {name}")
        with count.nothing_raised(f"{name} after Ctrl-C"):
            if why := work.differs(name, getattr(work, name)()):
                count.note("silent", f"{name} after Ctrl-C: {why}")


def _interrupted(work: Callable[[], Any], after: float) -> bool:
    """Whether the work was met by a SIGINT `after` seconds."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        try:
            work()
        finally:
            timer.cancel()
            timer.join()
            time.sleep(0.001)  # a signal that came at the very end
    except KeyboardInterrupt:
        return True
    return False


def commands(work: Work, chance: random.Random, folder: Path, count: Count) -> None:
    """Ctrl-C in a command: exit code 130 and one line, or all its files."""
    line = (*COMMAND, "--out", folder / "out.html", "--csv", folder / "table.csv")
    work.seconds.setdefault("command", _seconds(line, folder))
    number = child(lambda: command(*line), folder / "errors")
    time.sleep(chance.uniform(0, 1.1 * work.seconds["command"]))
    os.kill(number, signal.SIGINT)
    status = ended(number)
    count.tried += 1
    count.met += status == 130
    if status not in (FINE, 130, OUTSIDE, -signal.SIGINT) or raw(folder / "errors"):
        count.note("tracebacks", f"exit code {status}: {(folder / 'errors').read_text(errors='replace')}")
    if why := broken_files(folder, ROWS):
        count.note("lost", f"after Ctrl-C: {why}")
    if status == FINE and not (folder / "table.csv").exists():
        count.note("lost", "exit code 0 without the table")


def _seconds(line: tuple[Any, ...], folder: Path) -> float:
    started = time.perf_counter()
    done(lambda: command(*line), folder / "errors")
    for name in ("out.html", "table.csv"):
        (folder / name).unlink(missing_ok=True)
    return time.perf_counter() - started


def full_disk(work: Work, chance: random.Random, folder: Path, count: Count) -> None:
    """No file may grow beyond a size: what was there stays whole, one line says so, a store goes on with more room."""
    result, store = work.sweep(whole=True), folder / "runs.sqlite"
    vector = sl.actadd(work.model, " weddings", " ", layer=2)
    writers: dict[str, tuple[Path, int, Callable[[], Any]]] = {
        "report": (folder / "out.html", 400_000, lambda: result.report(folder / "out.html")),
        "vector": (folder / "v.safetensors", 4_000, lambda: vector.save(folder / "v.safetensors")),
        "table": (folder / "table.csv", 8_000, lambda: command(*COMMAND, "--csv", folder / "table.csv")),
        "store": (store, 150_000, lambda: work.sweep(store)),
    }
    for name, (path, most, write) in writers.items():
        before = b"what was there"
        if name != "store":
            path.write_bytes(before)

        def limited(write: Callable[[], Any] = write, size: int = chance.randrange(most)) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            write()

        status = done(limited, folder / "errors")
        count.tried += 1
        count.met += status != FINE
        if status not in (FINE, 2, TOLD) or raw(folder / "errors"):
            count.note("tracebacks", f"{name}, exit code {status}: {(folder / 'errors').read_text(errors='replace')}")
        if name == "store":
            with count.nothing_raised("going on with more room"):
                if why := different(work.sweep(store), work.expected["sweep"]):
                    count.note("silent", f"store after a full disk: {why}")
        elif status != FINE and path.read_bytes() != before:
            count.note("lost", f"{name}: the old file is not whole")
        elif status == FINE and path.read_bytes() == before:
            count.note("lost", f"{name}: exit code 0 and nothing written")
    if why := broken_files(folder, ROWS) if not _old(folder) else "":
        count.note("lost", f"full disk: {why}")


def _old(folder: Path) -> bool:
    return any((folder / name).read_bytes() == b"what was there" for name in ("out.html", "table.csv"))


def two_processes(work: Work, chance: random.Random, folder: Path, count: Count) -> None:
    """Two sweeps fill one store at the same time: both have the whole table."""
    store = folder / "runs.sqlite"
    children = []
    for name in ("a", "b"):
        table = folder / f"{name}.pickle"
        children.append(child(lambda table=table: work.sweep(store).to_pickle(table), folder / name))  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.3 * work.seconds["sweep"]))
    for name, number in zip(("a", "b"), children, strict=True):
        status = ended(number)
        count.tried += 1
        count.met += 1
        if status != FINE:
            count.note("tracebacks", f"exit code {status}: {(folder / name).read_text(errors='replace')}")
        elif why := different(pd.read_pickle(folder / f"{name}.pickle"), work.expected["sweep"]):
            count.note("silent", why)
    if finished(store) != 5:
        count.note("lost", f"{finished(store)} of 5 conditions are in the store")


def pipes(work: Work, chance: random.Random, folder: Path, count: Count) -> None:
    """Nobody reads a command's output to its end: all files are written, nothing is complained of."""
    del work
    reads, writes = os.pipe()
    line = (*COMMAND, "--out", folder / "out.html", "--csv", folder / "table.csv")
    number = child(lambda: command(*line), folder / "errors", out=writes)
    os.close(writes)
    if (letters := chance.choice([0, 0, 1, 40])) > 0:
        os.read(reads, letters)
    os.close(reads)
    status = ended(number)
    count.tried += 1
    count.met += 1
    if status != FINE or raw(folder / "errors"):
        count.note("tracebacks", f"exit code {status}: {(folder / 'errors').read_text(errors='replace')}")
    there = (folder / "out.html").exists() and (folder / "table.csv").exists()
    if why := broken_files(folder, ROWS) if there else "a file is missing":
        count.note("lost", f"closed pipe: {why}")


def threads(work: Work, chance: random.Random, folder: Path, count: Count) -> None:
    """Three threads steer one model, each its own way: each gets what it gets alone."""
    del folder
    coeffs = [chance.choice([-4.0, -1.0, 1.0, 2.0, 4.0]) for _ in range(3)]
    for coeff in coeffs:
        if f"generate {coeff}" not in work.expected:
            work.expected[f"generate {coeff}"] = work.generate(coeff)
    hooks = work.hooks()
    with ThreadPoolExecutor(3) as pool:
        jobs = [(coeff, pool.submit(work.generate, coeff)) for coeff in coeffs]
        for coeff, job in jobs:
            count.tried += 1
            count.met += 1
            with count.nothing_raised("a thread"):
                if why := work.differs(f"generate {coeff}", job.result()):
                    count.note("silent", f"a thread: {why}")
    if work.hooks() != hooks:
        count.note("silent", "hooks stay after threads")


KINDS: dict[str, Disturbance] = {
    "kills": kills,
    "interrupts": interrupts,
    "commands": commands,
    "full disk": full_disk,
    "two processes": two_processes,
    "pipes": pipes,
    "threads": threads,
}
