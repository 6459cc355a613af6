"""The confirmation of a search: its best setting sampled anew, beside its controls, on prompts it was not chosen on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from steerlens.measures.damage import effects
from steerlens.measures.metrics import Metric
from steerlens.measures.verdicts import verdicts
from steerlens.runs.search_sampling import Sampler, completed, seed_of
from steerlens.runs.search_space import Candidate
from steerlens.steering import Condition, random_like
from steerlens.steering.prompting import Prompting
from steerlens.steering.prompts import Prompt


@dataclass(frozen=True, eq=False, repr=False)
class Confirmation:
    """What the best setting of a search does on prompts and samples that took no part in the choice.

    Attributes:
        completions: one row per completion, roles "unsteered", "steered", "random" (and "prompting").
        frame: one row per condition: the columns of `Sweep.effects` (effect, surprise, success with 95 % intervals).
        verdict, why: in words, as `Sweep.verdicts` gives them.
        note: "" or why the prompts are not held out.
    """

    completions: pd.DataFrame
    frame: pd.DataFrame
    verdict: str
    why: str
    note: str

    def row(self, role: str) -> pd.Series | None:
        """The row of a role; None without one."""
        rows = self.frame[self.frame["role"] == role]
        return rows.iloc[0] if len(rows) else None

    def __repr__(self) -> str:
        told = [
            f"{role} {row['success']:.0%} ({row['success_low']:.0%} to {row['success_high']:.0%})"
            for role in ("steered", "unsteered", "random", "prompting")
            if (row := self.row(role)) is not None
        ]
        where = "one prompt, not held out" if self.note else f"{self.completions['prompt'].nunique()} held-out prompts"
        return f"Confirmation({where}, on topic and fluent: {', '.join(told)}; {self.verdict})"


def confirmed_on(
    sampler: Sampler,
    best: Candidate,
    prompts: Sequence[Prompt],
    *,
    n: int,
    margin: float,
    note: str,
    prompting: Prompting | None = None,
) -> Confirmation:
    """The best candidate on `prompts`, with `n` new samples of each, beside no steering, a random vector and words."""
    injection, goal = best.injection, sampler.goal
    seed = seed_of(sampler.sampling.seed, "confirmation")
    noise = random_like(injection.vector, seed=seed)
    conditions = [Condition(), best.condition, Condition((dataclasses.replace(injection, vector=noise),))]
    roles = ["unsteered", "steered", "random"]
    if prompting is not None:
        conditions.append(Condition(prompting=prompting))
        roles.append("prompting")
    frame = completed(
        sampler.model,
        prompts,
        conditions,
        roles,
        sampling=dataclasses.replace(sampler.sampling, n=n, seed=seed),
        goal=goal,
        settings={**sampler.settings, "rung": "confirmation"},
        store=sampler.store,
        batch_size=sampler.batch_size,
    )
    return judged_on(frame, goal, margin=margin, note=note)


def judged_on(frame: pd.DataFrame, goal: Metric, *, margin: float, note: str) -> Confirmation:
    """Completions with their roles as a confirmation."""
    said = verdicts(frame, goal.column, goal.kind, margin=margin, better=goal.better).iloc[0]
    table = effects(frame, goal.column, goal.kind, margin=margin, better=goal.better).drop(columns=["front", "knee"])
    return Confirmation(frame, table, str(said["verdict"]), str(said["why"]), note)
