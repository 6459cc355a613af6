"""`generate_on_ray`: parts of a job on the workers of a Ray cluster, each of which loads the model once.

The model and the conditions are put into Ray's object store once. Weights are stored as plain arrays, which the workers
of a machine without accelerators share instead of copying.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import warnings
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from steerlens import __version__
from steerlens.engine.generation import generate
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.runs.packing import first_line, pack, unpack
from steerlens.steering.conditions import Condition
from steerlens.steering.prompts import PromptLike

Part = tuple[int, ...]

# A part on which this many workers have died will kill the next one too (usually for lack of memory).
_LIVES = 3
# Importing TransformerLens and unpacking a large model takes minutes on a slow machine; after this long it has failed.
_START_SECONDS = 900.0
_REACH_SECONDS = 10.0
_LOOK_SECONDS = 0.2


def generate_on_ray(
    model: HookedModel,
    prompts: Sequence[PromptLike],
    conditions: Sequence[Condition],
    parts: Iterator[Part | None],
    *,
    settings: Mapping[str, Any],
) -> Generator[tuple[Part, pd.DataFrame], None, None]:
    """Each part with the frame that `generate` returns for its conditions, in the order in which they finish.

    Uses the cluster that this process is connected to (`ray.init`), or the one that `RAY_ADDRESS` names, or one running
    on this machine, or starts a temporary one here. There is one worker per GPU if the model is on a GPU, else one per
    CPU core, as far as memory allows. A worker that is lost is replaced, and its part is run again.

    Args:
        parts: numbers of conditions to compute together; the next is requested when a worker is free. None means that
            there is nothing to do right now.
        settings: further arguments of `generate`.

    Raises:
        SteerlensError: Ray is not installed; the cluster cannot be reached, has no room for a worker, or has another
            version of steerlens; three workers were lost on one part; and whatever `generate` raises on a worker.
    """
    ray = _ray()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_connected(ray))
        crew = _Crew(ray, model, prompts, conditions, settings)
        stack.callback(crew.dismiss)
        try:
            yield from crew.work(parts)
        except SteerlensError:
            raise
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise SteerlensError(f"lost the Ray cluster: {first_line(error)}; finished conditions are kept") from error


class _Crew:
    """The workers and what each is working on."""

    def __init__(
        self,
        ray: Any,
        model: HookedModel,
        prompts: Sequence[PromptLike],
        conditions: Sequence[Condition],
        settings: Mapping[str, Any],
    ) -> None:
        self._ray = ray
        devices = {weight.device for weight in model.parameters()}  # type: ignore[attr-defined]
        if len(devices) > 1:
            raise SteerlensError(
                f"the model is spread over {len(devices)} devices, but a Ray worker has one; load it on one device"
            )
        kind = devices.pop().type
        self._job = ray.put(pack((model, list(prompts), list(conditions), dict(settings))))
        self._device = kind
        bytes_each = sum(weight.nbytes for weight in model.parameters())  # type: ignore[attr-defined]
        self._room = _room(ray.cluster_resources(), gpu=kind == "cuda", bytes_each=bytes_each)
        resources = {"num_gpus": 1, "num_cpus": 1} if kind == "cuda" else {"num_cpus": 1}
        # Lost workers are replaced here: Ray would restart one, but forget what it was working on.
        self._hire_one = ray.remote(max_restarts=0, max_task_retries=0, **resources)(_Worker).remote
        self._workers: list[Any] = []
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Part | None]] = {}  # answer awaited → its worker and part (None: starting)
        self._lost: Counter[Part] = Counter()
        self._failed_starts = 0

    def work(self, parts: Iterator[Part | None]) -> Iterator[tuple[Part, pd.DataFrame]]:
        """Every part and its frame."""
        waiting: deque[Part] = deque()
        more, last_sign = True, time.monotonic()
        while True:
            while more and len(waiting) < max(len(self._idle), self._room - len(self._workers)):
                part = next(parts, ())
                if part == ():
                    more = False
                if not part:
                    break
                waiting.append(part)
            while self._idle and waiting:
                worker, part = self._idle.pop(), waiting.popleft()
                self._busy[worker.complete.remote(part)] = (worker, part)
            while len(self._workers) < min(self._room, len(self._workers) + len(waiting) - self._starting()):
                self._hire()
            working = any(part is not None for _, part in self._busy.values())
            if not (more or waiting or working):
                return
            if not self._busy:
                time.sleep(_LOOK_SECONDS)
                continue
            ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_LOOK_SECONDS * 5)
            if ready or working:
                last_sign = time.monotonic()
            elif time.monotonic() - last_sign > _START_SECONDS:
                raise SteerlensError(
                    f"no Ray worker has started within {_START_SECONDS:.0f} s; see `ray status` for what is missing"
                )
            for answer in ready:
                worker, part = self._busy.pop(answer)
                try:
                    frame = self._ray.get(answer)
                except self._ray.exceptions.RayTaskError as error:
                    raise _worker_error(error) from error
                except self._ray.exceptions.RayError as error:
                    self._bury(worker, part, error)
                    if part is not None:
                        waiting.appendleft(part)
                    continue
                self._idle.append(worker)
                self._failed_starts = 0
                if part is not None:
                    yield part, frame

    def dismiss(self) -> None:
        """End all workers."""
        for worker in self._workers:
            with contextlib.suppress(Exception):  # those already gone, or the whole cluster
                self._ray.kill(worker)
        self._workers.clear()

    def _starting(self) -> int:
        return sum(part is None for _, part in self._busy.values())

    def _hire(self) -> None:
        worker = self._hire_one()
        self._workers.append(worker)
        self._busy[worker.load.remote(self._job, self._device, __version__)] = (worker, None)

    def _bury(self, worker: Any, part: Part | None, error: Exception) -> None:
        self._workers.remove(worker)
        with contextlib.suppress(Exception):  # its answer may be lost while the worker is alive
            self._ray.kill(worker)
        if part is None:
            self._failed_starts += 1
            if self._failed_starts >= _LIVES:
                raise SteerlensError(f"Ray workers do not start: {first_line(error)}") from error
            return
        self._lost[part] += 1
        if self._lost[part] >= _LIVES:
            raise SteerlensError(
                f"{_LIVES} Ray workers were lost on the same conditions ({first_line(error)}); "
                "if memory ran out, give a smaller batch_size"
            ) from error
        warnings.warn("a Ray worker was lost; its conditions run again on another one", RuntimeWarning, stacklevel=2)


class _Worker:
    """A worker on the cluster: a model and its job, loaded once."""

    _job: tuple[HookedModel, list[str], list[Condition], dict[str, Any]]

    def load(self, packed: tuple[bytes, list[Any]], device: str, version: str) -> None:
        """Be ready."""
        if version != __version__:
            raise SteerlensError(
                f"a Ray worker has steerlens {__version__} and this process {version}; install one version"
            )
        self._job = unpack(packed, device=device)
        cfg = self._job[0].cfg
        if torch.device(cfg.device).type == "cuda":  # each worker sees one GPU, whatever number it has for the caller
            cfg.device = "cuda"

    def complete(self, part: Part) -> pd.DataFrame:
        """The completions of these conditions."""
        model, prompts, conditions, settings = self._job
        return generate(model, prompts, [conditions[number] for number in part], **settings, progress=False)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise SteerlensError("engine='ray' needs Ray; install it with pip install 'steerlens[ray]'") from None
    return ray


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    _check_reachable(address)
    try:
        ray.init(address=address or None, logging_level="ERROR", log_to_driver=False)
    except Exception as error:  # Ray may raise anything, bare Exception included
        where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
        raise SteerlensError(
            f"cannot reach or start {where}: {first_line(error)}; set RAY_ADDRESS, or start one with `ray start --head`"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise if the cluster cannot be reached: Ray itself tries for minutes, and in some versions ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise SteerlensError(
            f"cannot reach the Ray cluster at {address} ({error.strerror or error}); "
            "check RAY_ADDRESS, or start a cluster with `ray start --head`"
        ) from None


def _room(resources: Mapping[str, float], *, gpu: bool, bytes_each: int) -> int:
    """How many workers the cluster has room for."""
    slots = int(resources.get("GPU" if gpu else "CPU", 0))
    if slots < 1:
        lack = "GPU, and the model is on one: load it with device='cpu'" if gpu else "CPU"
        raise SteerlensError(f"the Ray cluster has no {lack}; see `ray status`")
    if gpu or "memory" not in resources:
        return slots
    # Twice the weights: a rearranged copy of the weights, and keys and values.
    return max(1, min(slots, int(resources["memory"] / (2 * bytes_each))))


def _worker_error(error: Any) -> SteerlensError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, SteerlensError):
        return SteerlensError(str(cause))
    if cause is None:
        return SteerlensError(f"a Ray worker failed: {first_line(error)}")
    return SteerlensError(f"a Ray worker failed: {type(cause).__name__}: {first_line(cause)}")
