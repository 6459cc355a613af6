"""Sweeps on a Ray cluster: the table of a local run, from two workers, of which one may die."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import steerlens as sl
from steerlens.measures.metrics import words
from steerlens.runs import cluster, packing
from tests.conftest import KINDS, ROOT, loaded
from tests.runs.pretend_ray import Ray

PAIR = sl.PromptPair(" weddings", " ")
PROMPT = "I went up to my friend and said"
SETTINGS = {"coeffs": [1.0, 4.0], "n": 4, "max_new_tokens": 6, "batch_size": 4}

try:
    import ray
except ImportError:
    ray = None
needs_ray = pytest.mark.skipif(ray is None, reason="Ray is not installed (pip install 'steerlens[ray]')")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """A cluster of its own on this machine, with room for two workers, at RAY_ADDRESS."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    # As few processes as Ray can do with: all of them must be up within 15 seconds, however busy the machine is.
    node = {
        "num_cpus": 2,
        "object_store_memory": 100_000_000,
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,
    }
    own = None
    try:
        for left in reversed(range(5)):  # tries
            try:
                own = Cluster(initialize_head=True, head_node_args=node)
                break
            except Exception as error:
                if "timed out during startup" not in str(error) or not left:
                    raise
        os.environ["RAY_ADDRESS"] = own.address
        yield
    finally:
        if own is not None:
            own.shutdown()
        os.environ.clear()
        os.environ |= before


def workers() -> dict[int, str]:
    """Process ids and titles of the Ray workers that descend from this process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    table = {
        int(pid): (int(parent), title) for pid, parent, title in (line.split(None, 2) for line in listed.splitlines())
    }

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in table and pid > 1 and ours(table[pid][0]))

    return {
        pid: title
        for pid, (_, title) in table.items()
        if title.startswith("ray::") and "_Worker" in title and ours(pid)
    }


# ---------------------------------------------------------------------------------------------------- without a cluster


@needs_ray
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_model_computes_the_same(kind: str) -> None:
    model = loaded("gpt2", kind)
    vector = sl.actadd(model, PAIR, layer=1)  # a bridge keeps hooks of transformers from such a pass
    before = sl.generate(model, PROMPT, vector, n=3, max_new_tokens=5)
    data, arrays = packing.pack(model)
    assert len(data) < 1_000_000 < sum(array.nbytes for array in arrays), "weights travel apart from the rest"
    for array in arrays:
        array.flags.writeable = False  # as Ray hands them out
    other = packing.unpack((data, arrays), device="cpu")
    assert other is not model
    pd.testing.assert_frame_equal(sl.generate(other, PROMPT, vector, n=3, max_new_tokens=5), before)
    assert torch.equal(sl.actadd(other, PAIR, layer=1).values, vector.values)
    # A slice of a larger weight gets memory of its own; the order of the axes stays, on which rounding depends.
    order = {name: sorted(range(w.ndim), key=w.stride) for name, w in model.named_parameters()}
    assert {name: sorted(range(w.ndim), key=w.stride) for name, w in other.named_parameters()} == order


@needs_ray
def test_packing_keeps_what_tensors_are() -> None:
    one = torch.nn.Parameter(torch.randn(3, 4, 5).permute(2, 0, 1), requires_grad=False)
    value = {
        "weight": one,
        "tied": one,
        "half": torch.randn(7).bfloat16(),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "other": lambda x: x + 1,
    }
    got = packing.unpack(packing.pack(value), device="cpu")
    assert got["weight"] is got["tied"]
    assert isinstance(got["weight"], torch.nn.Parameter)
    assert got["weight"].stride() == one.stride()
    assert not got["weight"].requires_grad
    for name in ("weight", "half", "flags", "empty", "scalar"):
        assert got[name].dtype == value[name].dtype
        assert torch.equal(got[name], value[name])
    assert got["other"](1) == 2
    got["half"][0] = 1  # buffers may be written to


def test_ray_is_not_installed(any_model: Any, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(sl.SteerlensError, match=r"pip install 'steerlens\[ray\]'"):
        sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray")


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "no-such-host.invalid:6379"])
def test_a_cluster_out_of_reach(any_model: Any, monkeypatch, tmp_path: Path, address: str) -> None:
    assert not ray.is_initialized()
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(sl.SteerlensError, match=f"cannot reach the Ray cluster at {address}") as error:
        sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray", store=tmp_path / "runs.sqlite")
    assert "\n" not in str(error.value)
    assert not ray.is_initialized()


def test_room_for_workers() -> None:
    assert cluster._room({"CPU": 8.0, "memory": 100e9}, gpu=False, bytes_each=10**9) == 8
    assert cluster._room({"CPU": 8.0, "memory": 10e9}, gpu=False, bytes_each=2 * 10**9) == 2
    assert cluster._room({"CPU": 8.0, "memory": 1e9}, gpu=False, bytes_each=10**9) == 1
    assert cluster._room({"CPU": 8.0, "GPU": 2.0}, gpu=True, bytes_each=10**9) == 2
    with pytest.raises(sl.SteerlensError, match="no GPU"):
        cluster._room({"CPU": 8.0}, gpu=True, bytes_each=10**9)


# --------------------------------------------------------------------------------------- with a cluster in this process


@pytest.fixture
def in_process(monkeypatch) -> Callable[..., Ray]:
    """Puts such a cluster in Ray's place."""

    def use(*arguments: Any, **settings: Any) -> Ray:
        one = Ray(*arguments, **settings)
        monkeypatch.setattr(cluster, "_ray", lambda: one)
        return one

    return use


@needs_ray
def test_the_table_is_that_of_a_local_run(any_model: Any, in_process: Any, tmp_path: Path) -> None:
    local = sl.sweep(any_model, PAIR, PROMPT, **SETTINGS)
    spread = in_process()
    result = sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray")
    pd.testing.assert_frame_equal(result.frame, local.frame, check_exact=True)
    assert result.summary.equals(local.summary)
    assert [len(mine) for mine in result.frame.attrs["receipts"]] == [0, *[1] * 12, 0]  # (words at last)
    assert spread.hired == 2
    assert spread.gone == {1, 2}, "the workers are gone with the sweep"
    stored = sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray", store=tmp_path / "a")
    pd.testing.assert_frame_equal(stored.frame, local.frame, check_exact=True)
    idle = in_process()
    again = sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray", store=tmp_path / "a")
    pd.testing.assert_frame_equal(again.frame, local.frame, check_exact=True)
    assert idle.hired == 0, "nothing was left to do"


@needs_ray
@pytest.mark.parametrize("seed", range(4))
def test_workers_that_die_at_any_time(any_model: Any, in_process: Any, seed: int) -> None:
    local = sl.sweep(any_model, PAIR, PROMPT, **SETTINGS)
    moments = random.Random(seed)
    deaths: Counter[Any] = Counter()

    def dies(name: str, worker: int, *arguments: Any) -> bool:
        what = arguments if name == "complete" else name
        if moments.random() < 0.3 and deaths[what] < 2:
            deaths[what] += 1
            return True
        return False

    in_process(dies, cpus=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray")
    pd.testing.assert_frame_equal(result.frame, local.frame, check_exact=True)
    lost = [one for one in caught if "worker was lost" in str(one.message)]
    assert len(lost) == sum(count for what, count in deaths.items() if what != "load")


@needs_ray
def test_conditions_that_kill_every_worker(any_model: Any, in_process: Any, tmp_path: Path) -> None:
    """An error after three, and what the others have computed is kept."""
    path = tmp_path / "runs.sqlite"
    deadly = in_process(lambda name, worker, *arguments: name == "complete" and 5 in arguments[0])
    with (
        pytest.warns(RuntimeWarning, match="run again"),
        pytest.raises(sl.SteerlensError, match="3 Ray workers were lost on the same conditions.*batch_size") as error,
    ):
        sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray", store=path)
    assert "\n" not in str(error.value)
    assert len([call for call in deadly.calls if call[0] == "complete" and 5 in call[2]]) == 3
    assert len(sl.read_store(path)) >= 4 * 4


@needs_ray
def test_workers_that_do_not_start(any_model: Any, in_process: Any) -> None:
    in_process(lambda name, *rest: name == "load")
    with pytest.raises(sl.SteerlensError, match="workers do not start: The actor died unexpectedly$"):
        sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray")


@needs_ray
def test_what_goes_wrong_on_a_worker_is_told_here(any_model: Any, in_process: Any, monkeypatch) -> None:
    in_process()
    long = sl.actadd(any_model, "a b c d e f g h", " ", layer=1)
    with pytest.raises(sl.SteerlensError, match="^a b c d e f g h − ' ' on 'short': vector spans 9 positions") as error:
        sl.sweep(any_model, [long], "short", **SETTINGS, metrics=[words("a")], engine="ray")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(cluster, "generate", lambda *a, **k: 1 / 0)
    with pytest.raises(sl.SteerlensError, match="a Ray worker failed: ZeroDivisionError: division by zero"):
        sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray")


@needs_ray
def test_another_steerlens_on_the_cluster(any_model: Any, in_process: Any, monkeypatch) -> None:
    in_process()
    load = cluster._Worker.load
    monkeypatch.setattr(cluster._Worker, "load", lambda self, job, device, version: load(self, job, device, "0.0.9"))
    with pytest.raises(sl.SteerlensError, match=r"this process 0\.0\.9; install one version"):
        sl.sweep(any_model, PAIR, PROMPT, **SETTINGS, engine="ray")


# ------------------------------------------------------------------------------------------------------- with a cluster


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@needs_ray
@pytest.mark.slow
@pytest.mark.outside
@pytest.mark.usefixtures("two_workers")
def test_two_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    """The table is that of a local run, the store is whole, and nothing is left running."""
    model = loaded("gpt2", KINDS[-1])  # a bridge, the harder one to send
    settings = SETTINGS | {"n": 40, "max_new_tokens": 30, "batch_size": 40}
    local = sl.sweep(model, PAIR, PROMPT, **settings)
    path = tmp_path / "runs.sqlite"
    killed: list[tuple[int, int]] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            time.sleep(0.02)
            if not path.exists():
                continue
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
                try:
                    (finished,) = db.execute("SELECT count(finished) FROM run").fetchone()
                except sqlite3.OperationalError:
                    continue
            at_work = [pid for pid, title in workers().items() if "complete" in title]
            if finished and at_work:
                os.kill(at_work[0], signal.SIGKILL)
                killed.append((at_work[0], finished))

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.warns(RuntimeWarning, match="worker was lost; its conditions run again"):
        spread = sl.sweep(model, PAIR, PROMPT, **settings, engine="ray", store=path)
    killer.join()
    assert killed
    assert killed[0][1] < 13
    pd.testing.assert_frame_equal(spread.frame, local.frame, check_exact=True)
    assert spread.summary.equals(local.summary)
    assert len(sl.read_store(path)) == len(local.frame) == 14 * 40
    time.sleep(1)
    assert not any(map(alive, workers())), "the workers are gone with the sweep"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left to do: no worker is started
        again = sl.sweep(model, PAIR, PROMPT, **settings, store=path)
    pd.testing.assert_frame_equal(again.frame, local.frame, check_exact=True)
