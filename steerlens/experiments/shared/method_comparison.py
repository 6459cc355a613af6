"""`compare_methods`: methods of steering on one set of prompts, for the sentiment and the toxicity experiment.

The methods: no steering; Activation Addition at a layer and coefficient; the positive phrase in front of the prompt;
random vectors of the same norm at the same place. Layer and coefficient are chosen on prompts that are not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlens.errors import SteerlensError
from steerlens.experiments.shared.comparison_options import ComparisonOptions
from steerlens.experiments.shared.continuations import Measures, Runner, Way
from steerlens.experiments.shared.method_summary import tuning_table
from steerlens.experiments.shared.scorers import scorer_name
from steerlens.models.run_settings import run_settings
from steerlens.steering import Condition, Injection, Placement, PromptPair, SteeringVector, actadd
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.random_vectors import random_like


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods compared on one set of prompts.

    Attributes:
        completions: frame of `Runner.measure` for the reported prompts, with `hit` (the effect wanted, as a number).
        tuning: one row per layer × coefficient on the validation prompts (and the unsteered model): label, role,
            layer, coeff, n, effect, effect_low, effect_high, damage, damage_low, damage_high (perplexity, geometric
            mean), allowed (disfluency within the limit), chosen. Empty if there was nothing to choose.
        layer, coeff: what was chosen.
        n_validation, n_reported: prompts.
        n_short: prompts left out because they have fewer tokens than the vector has positions.
    """

    completions: pd.DataFrame
    tuning: pd.DataFrame
    layer: int
    coeff: float
    n_validation: int
    n_reported: int
    n_short: int

    @property
    def chosen(self) -> str:
        """Layer and coefficient in words."""
        return f"layer {self.layer}, coefficient {self.coeff:g}"


@dataclass(frozen=True)
class Effect:
    """The effect that steering is after, computed from scores; more is better.

    Attributes:
        of: scores in, one number each.
        kind: "share" where the numbers are 0 or 1.
    """

    of: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    kind: Literal["share", "mean"]


def compare_methods(
    runner: Runner,
    prompts: Sequence[str],
    *,
    pair: PromptPair,
    phrase: str,
    effect: Effect,
    measures: Measures,
    options: ComparisonOptions,
    name: str = "",
) -> Comparison:
    """Unsteered, ActAdd, prompting and random vectors on the same prompts.

    Layer and coefficient are chosen on `options.validation` of the prompts (drawn by the seed; at most half of them;
    prompts shorter than the vector are left out and counted): the largest mean effect among the conditions whose
    disfluency is within the limit. The numbers are those of the other prompts. With one layer and one coefficient there
    is nothing to choose, and all prompts are reported.

    Raises:
        SteerlensError: too few prompts to choose and to report; whatever generating and scoring raise.
    """
    vectors = actadd(runner.model, pair, layers=options.layers)
    grid = [coeff * vector for vector in vectors.values() for coeff in dict.fromkeys(options.coeffs)]  # type: ignore[arg-type]
    span = max(vector.n_positions for vector in grid)
    given = len(prompts)
    prompts = [prompt for prompt in prompts if len(prompt_ids(runner.model, prompt)) >= span]
    if not prompts:
        raise SteerlensError(
            f"none of the {given} prompts has the {span} tokens that the vector {pair} needs; give longer prompts"
        )
    held, kept = _divided(prompts, options.validation if len(grid) > 1 else None, seed=runner.sampling.seed)
    tuning, best = pd.DataFrame(), grid[0]
    if held:
        ways = [Way("unsteered"), *(Way("ActAdd", _condition(vector, options.placement)) for vector in grid)]
        frame = runner.complete(held, ways, what=f"{name}choosing a layer")
        # Nothing is chosen by relevance, so it is not measured here.
        frame = runner.measure(frame, held, replace(measures, embedder=None))
        frame["hit"] = effect.of(frame["score"].to_numpy())
        tuning = tuning_table(frame, effect.kind, options.disfluency_limit)
        best = grid[int(tuning.index[tuning["chosen"]][0]) - 1]
    frame = _complete_all(runner, kept, best, phrase, options, name)
    frame = runner.measure(frame, kept, measures)
    frame["hit"] = effect.of(frame["score"].to_numpy())
    frame = frame.drop(columns=["_ids", "_part", "_chunk"])
    return Comparison(frame, tuning, best.layer, best.coeff, len(held), len(kept), given - len(prompts))


def comparison_settings(
    runner: Runner, pair: PromptPair, measures: Measures, options: ComparisonOptions
) -> dict[str, Any]:
    """The settings that all experiments have which compare methods, as plain data."""
    return {
        "pair": str(pair),
        "pad": pair.pad,
        **options.settings(),
        "scorer": scorer_name(measures.scorer),
        "scorer fingerprint": str(getattr(measures.scorer, "key", "")) or "none",
        "relevance": measures.embedder.name if measures.embedder else "not measured",
        "disfluency": "perplexity of the completion given the prompt, under the unsteered model",
        **asdict(runner.sampling),
        **run_settings(runner.model),
    }


def chosen_by(what: str, limit: float | None) -> str:
    """How layer and coefficient were chosen, for the settings."""
    among = "" if limit is None else f" among those of at most {limit:g} times the unsteered perplexity"
    return f"{what} on the validation prompts{among}"


def in_front(phrase: str) -> str:
    """What prompting writes before a prompt: the phrase and a space."""
    return phrase if not phrase or phrase[-1].isspace() else f"{phrase} "


def _divided(prompts: Sequence[str], validation: int | None, *, seed: int) -> tuple[list[str], list[str]]:
    """The prompts to choose on and those to report, in their order; None for `validation`: nothing is to be chosen."""
    if validation is None:
        return [], list(prompts)
    if len(prompts) < 2 or validation < 1:
        raise SteerlensError(
            f"{len(prompts)} prompts with validation={validation} leave none to choose a layer and coefficient on; "
            "give more, or one layer and one coefficient"
        )
    order = np.random.default_rng(seed).permutation(len(prompts))
    n_held = min(validation, len(prompts) // 2)
    return [prompts[i] for i in sorted(order[:n_held])], [prompts[i] for i in sorted(order[n_held:])]


def _complete_all(
    runner: Runner, prompts: list[str], best: SteeringVector, phrase: str, options: ComparisonOptions, name: str
) -> pd.DataFrame:
    """Completions of the reported prompts by every method."""
    ways = [Way("unsteered"), Way("ActAdd", _condition(best, options.placement)), Way("prompting", prefix=phrase)]
    parts = [runner.complete(prompts, ways, what=f"{name}completions")]
    # Prompts take turns with the draws, so that one unlucky direction does not stand for all.
    for draw in range(min(options.random_draws, len(prompts))):
        random = random_like(best, seed=runner.sampling.seed + draw)
        turn = list(range(draw, len(prompts), options.random_draws))
        one = runner.complete(
            [prompts[i] for i in turn],
            [Way("random vector", _condition(random, options.placement))],
            what=f"{name}random vector {draw + 1}",
        )
        one["prompt_number"] = [turn[i] for i in one["prompt_number"]]
        parts.append(one.assign(way=3))
    frame = pd.concat(parts, ignore_index=True)
    return frame.sort_values(["way", "prompt_number", "sample"], kind="stable", ignore_index=True)


def _condition(vector: SteeringVector, placement: Placement | None) -> Condition:
    return Condition((Injection(vector, placement),))
