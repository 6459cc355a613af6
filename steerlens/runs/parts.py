"""A sweep's completions, part by part: each part is computed here or on a cluster, and stored as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from steerlens.arguments import choice
from steerlens.engine.generation import check_job, generate
from steerlens.engine.sampling import conditions_together
from steerlens.engine.sampling_settings import Sampling
from steerlens.models import HookedModel, end_ids, fingerprint
from steerlens.progress import progress_bar
from steerlens.runs.cluster import generate_on_ray
from steerlens.runs.run_keys import Planned, job_key
from steerlens.runs.store import Store
from steerlens.steering import Condition
from steerlens.steering.prompts import Prompt, PromptLike

Engine = Literal["local", "ray"]

# How often to check whether another process has finished what it is working on.
_LOOK_SECONDS = 0.2
# Another process may take this many times as long for a part as the longest one has taken here.
_PATIENCE = 2.0


def complete_in_parts(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    conditions: Sequence[Condition],
    roles: Sequence[str],
    *,
    sampling: Sampling,
    settings: Mapping[str, Any],
    store: str | Path | None,
    engine: Engine,
    batch_size: int | None = None,
    compile: bool = False,
    surprise: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """The frame of `generate` with a column `role`; only conditions that the store does not hold are computed.

    A part is as many conditions as fill a batch. Parts are the same whenever and wherever the job runs, so a run that
    was stopped resumes with the very batches it would have had.

    Args:
        sampling: how many completions and how they are drawn.
        settings: what the store records of the sweep.
        surprise: see `generate`.
        store: the file in which finished conditions are kept, or None.

    Raises:
        SteerlensError: see `Store`, `generate_on_ray`, `generate`, and `fingerprint` (live hooks).
    """
    given = check_job(model, prompts, conditions, sampling=sampling, batch_size=batch_size)
    weights = fingerprint(model)
    texts, ids = [prompt.text for prompt in given], [prompt.ids for prompt in given]
    job = job_key(weights, texts, ids, sampling, ends=end_ids(model), surprise=surprise)
    planned = [Planned.of(condition, role, job=job) for condition, role in zip(conditions, roles, strict=True)]
    number_of = {one.key: number for number, one in reversed(list(enumerate(planned)))}
    how = {"sampling": sampling, "batch_size": batch_size, "compile": compile, "surprise": surprise}
    together = conditions_together(model, prompts=len(texts), n=sampling.n, batch_size=batch_size)
    with Store(store) as kept:
        sweep = kept.register(planned, rows=len(texts) * sampling.n, settings={**settings, "weights": weights})
        keys = list(dict.fromkeys(one.key for one in planned))
        work = _Work(kept, sweep, [tuple(keys[i : i + together]) for i in range(0, len(keys), together)], number_of)
        done = _on_ray if engine == "ray" else _here
        with (
            progress_bar(len(keys), unit="condition", what="sampling", progress=progress) as bar,
            closing(done(model, given, conditions, work, how)) as frames,
        ):
            bar.update(len(keys) - len(kept.missing(sweep)))
            for part, frame in frames:
                work.keep(part, frame)
                bar.update(len(keys) - len(kept.missing(sweep)) - bar.n)
        frame = kept.frame(sweep)
    return frame if surprise else frame.drop(columns="surprise")


Part = tuple[int, ...]
"""Numbers of conditions that are computed together."""


class _Work:
    """What is left to do in a sweep, in order.

    Iterating yields parts until everything is finished, and None while what is missing is being computed elsewhere.
    """

    def __init__(
        self, store: Store, sweep: int, parts: Sequence[tuple[str, ...]], number_of: Mapping[str, int]
    ) -> None:
        self._store, self._sweep, self._parts, self._number_of = store, sweep, parts, number_of
        self._key_of = {number: key for key, number in number_of.items()}
        self._started: dict[Part, float] = {}
        self._longest = 0.0

    def __iter__(self) -> Iterator[Part | None]:
        while self._store.missing(self._sweep):
            mine = frozenset(self._key_of[number] for part in self._started for number in part)
            keys = self._store.claim(self._sweep, self._parts, mine=mine, patience=_PATIENCE * self._longest)
            if keys:
                part = tuple(self._number_of[key] for key in keys)
                self._started[part] = time.monotonic()
                yield part
            else:
                yield None

    def keep(self, part: Part, frame: pd.DataFrame) -> None:
        """Store a finished part, as returned by `generate`."""
        receipts = frame.attrs["receipts"]
        runs = {}
        for place, number in enumerate(part):
            one = frame[frame["condition"] == place]
            one.attrs = {"receipts": [receipts[place]]}
            runs[self._key_of[number]] = one
        self._store.write(runs)
        self._longest = max(self._longest, time.monotonic() - self._started.pop(part))


def _here(
    model: HookedModel, prompts: list[Prompt], conditions: Sequence[Condition], work: _Work, settings: dict[str, Any]
) -> Generator[tuple[Part, pd.DataFrame], None, None]:
    for part in work:
        if part is None:
            time.sleep(_LOOK_SECONDS)
        else:
            yield part, generate(model, prompts, [conditions[number] for number in part], **settings, progress=False)


def _on_ray(
    model: HookedModel, prompts: list[Prompt], conditions: Sequence[Condition], work: _Work, settings: dict[str, Any]
) -> Generator[tuple[Part, pd.DataFrame], None, None]:
    return generate_on_ray(model, prompts, conditions, iter(work), settings=settings)


def check_engine(engine: str) -> None:
    """Raise SteerlensError if there is no such engine."""
    choice("engine", engine, ("local", "ray"))
