"""The confirmation of a search: its best setting sampled anew, beside its controls, on prompts it was not chosen on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from steerlens.runs.confirming import Confirmation
from steerlens.runs.search_sampling import Sampler, completed, seed_of
from steerlens.runs.search_space import Candidate
from steerlens.steering import Condition, random_like
from steerlens.steering.prompting import Prompting
from steerlens.steering.prompts import Prompt


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
    several = "prompt" if len(prompts) == 1 else "prompts"
    settings = {
        "condition": best.label,
        "chosen on": f"{len(sampler.prompts)} prompts × up to {sampler.sampling.n} samples",
        "confirmed on": f"{len(prompts)} {several} × {n} samples, seed {seed}" + (f" ({note})" if note else ""),
        **{key: value for key, value in sampler.settings.items() if key not in ("prompts", "held_out")},
        "prompts": [prompt.text for prompt in prompts],
        "n": n,
        "seed": seed,
    }
    return Confirmation(frame, goal, margin, settings)
