"""Sampling for a search: a rung of completions for some candidates, measured, and kept in a store if there is one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from steerlens.engine import Sampling, generate
from steerlens.engine.sampling import conditions_together
from steerlens.measures.measuring import measure_completions
from steerlens.measures.metrics import Metric
from steerlens.models import HookedModel
from steerlens.runs.parts import complete_in_parts
from steerlens.steering import Condition
from steerlens.steering.prompts import Prompt


@dataclass(eq=False)
class Sampler:
    """Completions of conditions, rung by rung, each rung with random numbers of its own that all candidates share.

    Attributes:
        rungs: samples of each prompt at each rung.
        sampling: how they are drawn; its `n` is that of all rungs together.
        settings: what a store records of the search.
        store: where completions are kept, or None.
    """

    model: HookedModel
    prompts: Sequence[Prompt]
    rungs: tuple[int, ...]
    sampling: Sampling
    goal: Metric
    settings: Mapping[str, Any]
    store: Path | None = None
    batch_size: int | None = None
    usual: dict[str, float] = field(default_factory=dict)

    def at(self, rung: int) -> Sampling:
        """How the completions of a rung are drawn."""
        return dataclasses.replace(self.sampling, n=self.rungs[rung], seed=seed_of(self.sampling.seed, f"rung {rung}"))

    def room(self, rung: int) -> int:
        """How many conditions fill a batch."""
        return conditions_together(
            self.model, prompts=len(self.prompts), n=self.rungs[rung], batch_size=self.batch_size
        )

    def most_tokens(self, rung: int) -> int:
        """The most tokens that a condition takes at a rung."""
        return len(self.prompts) * self.rungs[rung] * self.sampling.max_new_tokens

    def __call__(
        self, conditions: Sequence[Condition], rung: int, *, roles: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """The completions of a rung, measured; see `completed`."""
        return completed(
            self.model,
            self.prompts,
            conditions,
            roles or ["steered"] * len(conditions),
            sampling=self.at(rung),
            goal=self.goal,
            settings={**self.settings, "rung": rung},
            store=self.store,
            batch_size=self.batch_size,
        )


def completed(
    model: HookedModel,
    prompts: Sequence[Prompt],
    conditions: Sequence[Condition],
    roles: Sequence[str],
    *,
    sampling: Sampling,
    goal: Metric,
    settings: Mapping[str, Any],
    store: Path | None,
    batch_size: int | None,
) -> pd.DataFrame:
    """The completions of `generate`, with surprise, role and the goal; from a store where it has them.

    Raises:
        MetricFailed: the goal fails on a completion; the completions are kept.
    """
    if store is None:
        frame = generate(
            model, prompts, list(conditions), sampling=sampling, surprise=True, batch_size=batch_size, progress=False
        )
        frame.insert(2, "role", frame["condition"].map(dict(enumerate(roles))))
    else:
        frame = complete_in_parts(
            model,
            list(prompts),
            conditions,
            roles,
            sampling=sampling,
            settings={**settings, "prompts": [prompt.text for prompt in prompts], "seed": sampling.seed},
            store=store,
            engine="local",
            batch_size=batch_size,
            surprise=True,
            progress=False,
        )
    measure_completions(frame, (goal,), kept="" if store is None else f" in {store}")
    return frame


def seed_of(seed: int, purpose: str) -> int:
    """A seed of its own for a purpose, so that no two purposes share random numbers."""
    digest = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8, person=b"steerlens seed")
    return int.from_bytes(digest.digest(), "little", signed=True)
