"""`solve_strengths`: the coefficients at which vectors are equally strong, by norm, next-token KL or surprise.

All vectors at once: a round is one batched evaluation that holds a few coefficients for every vector that is not done
yet (see `bracketing`).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from steerlens.analysis.bracketing import FIRST, FIRST_OF_SURPRISE, ZERO, Bracketing, Solved
from steerlens.analysis.injected import injected_rows
from steerlens.arguments import finite_number, listed, shown, whole_number
from steerlens.engine import Sampling, generate
from steerlens.engine.reductions import reduce_next_tokens
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, for_one_thread, require_model
from steerlens.steering import Condition, Injection, Placement, Steering, SteeringVector
from steerlens.steering.beginnings import after_bos
from steerlens.steering.conditions import check_conditions
from steerlens.steering.extraction.activations import activations
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts
from steerlens.steering.strengths import Strength, check_strength

EVALUATIONS = 6
"""The most batched evaluations that solving takes."""

# Completions by which surprise is measured: the same random numbers at every coefficient.
_FOR_SURPRISE = Sampling(n=4, max_new_tokens=20)


@for_one_thread
@torch.no_grad()
def solve_strengths(
    model: HookedModel,
    vectors: SteeringVector | Injection | Mapping[int, SteeringVector] | Sequence[SteeringVector | Injection],
    prompts: PromptLike | Sequence[PromptLike],
    strength: Strength,
    *,
    placement: Placement | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> pd.DataFrame:
    """The coefficient of each vector at which it is as strong as asked for, to ±5 %: one row per vector.

    `norm_share` takes one pass over the prompts; `iso_kl` and `iso_surprise` at most 6 batched evaluations for all
    vectors together, whatever their layers, sites, placements and operations.

    Args:
        vectors: one or several (`{layer: vector}` as `actadd(layers=…)` gives, too), or injections.
        prompts: over which the strength is averaged.
        strength: `sl.norm_share(0.3)`, `sl.iso_kl(0.5)` or `sl.iso_surprise(1.0)`.
        placement: where the vectors go; by default each one's own.
        batch_size, memory_budget: as for `next_token_logits`.

    Returns:
        Columns: vector (its number), label, layer, site, placement, operation, strength (as text), target, coeff (what
        to multiply the vector with), reached (the strength there), error (reached / target − 1), evaluations (batched
        evaluations until it was found), found (bool: within 5 %), why ("" or why it was not found: then coeff is the
        nearest that was tried).

    Raises:
        SteerlensError: no vectors, a vector of another model or that does not fit, no strength; a next-token KL asked
            of a vector that goes to generated tokens alone.
    """
    require_model(model)
    strength = check_strength(strength)
    if batch_size is not None:  # checked even where one pass is all it takes
        whole_number("batch_size", batch_size, least=1)
    if memory_budget is not None:
        finite_number("memory_budget", memory_budget, least=0)
    if isinstance(vectors, Mapping):
        vectors = list(vectors.values())
    given = [vectors] if isinstance(vectors, SteeringVector | Injection) else listed("vectors", vectors, of="vectors")
    if not given or not all(isinstance(one, SteeringVector | Injection) for one in given):
        raise SteerlensError(f"give at least one SteeringVector to solve a strength for, got {shown(vectors)}")
    injections = [Injection(one, placement) if isinstance(one, SteeringVector) else one for one in given]
    read = read_prompts(model, prompts)
    found = solved(model, injections, read, strength, batch_size=batch_size, memory_budget=memory_budget)
    rows = [
        {
            "vector": number,
            "label": one.vector.label,
            "layer": one.vector.layer,
            "site": one.vector.site,
            "placement": str(one.placement),
            "operation": one.operation,
            "strength": str(strength),
            "target": strength.target,
            "coeff": answer.coeff,
            "reached": answer.reached,
            "error": answer.reached / strength.target - 1,
            "evaluations": answer.evaluations,
            "found": answer.found,
            "why": answer.why,
        }
        for number, (one, answer) in enumerate(zip(injections, found, strict=True))
    ]
    return pd.DataFrame(rows)


def solved(
    model: HookedModel,
    injections: Sequence[Injection],
    prompts: Sequence[Prompt],
    strength: Strength,
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> list[Solved]:
    """The coefficient of each injection's vector (see `solve_strengths`)."""
    check_conditions(model, [Condition((one,)) for one in injections])
    shares = norm_shares(model, injections, prompts)
    if strength.measure == "norm_share":
        return [
            Solved(strength.target / share, strength.target, 1) if share > 0 else Solved(0.0, 0.0, 1, ZERO)
            for share in shares
        ]
    if strength.measure == "iso_kl":
        for one in injections:
            if one.placement == "generated":
                raise SteerlensError(
                    f"iso_kl is the KL of the next token, which placement='generated' does not touch ({one.title!r}); "
                    "use sl.iso_surprise or sl.norm_share"
                )
        measure, first = _kl, FIRST
    else:
        measure, first = _surprise, FIRST_OF_SURPRISE
    ask = partial(measure, model, prompts, batch_size=batch_size, memory_budget=memory_budget)
    return _solved_by_rounds(injections, shares, strength, ask, first)


def _kl(
    model: HookedModel, prompts: Sequence[Prompt], steering: list[Steering], **options: Any
) -> Float[np.ndarray, " condition"]:
    """The mean KL of the next token; NaN where a condition overflows the model."""
    kl = reduce_next_tokens(model, prompts, [Condition(), *steering], base=0, **options).kl
    assert kl is not None
    return kl[1:].cpu().double().mean(1).numpy()


def _surprise(
    model: HookedModel, prompts: Sequence[Prompt], steering: list[Steering], **options: Any
) -> Float[np.ndarray, " condition"]:
    """The mean surprise of completions above that of unsteered ones; NaN where a condition overflows the model."""
    conditions = [Condition(), *steering]
    frame = generate(model, prompts, conditions, sampling=_FOR_SURPRISE, surprise=True, progress=False, **options)
    gone = (frame["n_tokens"] == 0) & ~frame["finished"]
    surprise = frame["surprise"].mask(gone, np.inf).groupby(frame["condition"]).mean().to_numpy()
    return surprise[1:] - surprise[0]


def norm_shares(model: HookedModel, injections: Sequence[Injection], prompts: Sequence[Prompt]) -> list[float]:
    """How long each injection's vector is in proportion to the activations it goes to: the mean over positions.

    Of a vector that goes to generated tokens alone, the positions of the prompts after BOS stand in.
    """
    at: dict[Site, set[int]] = {}
    for one in injections:
        at.setdefault(one.vector.site, set()).add(one.vector.layer)
    ratios: list[list[float]] = [[] for _ in injections]
    own = [one.vector.norms.cpu().tolist() for one in injections]
    for prompt in prompts:
        ids = torch.tensor([prompt.ids], device=model.cfg.device)
        mask = torch.ones_like(ids)
        norms = {
            (site, layer): values[0].norm(dim=-1).cpu().tolist()
            for site, layers in at.items()
            for layer, values in activations(
                model, ids, sorted(layers), site=site, attention_mask=mask, live_hooks=True
            ).items()
        }
        for one, rows, found in zip(injections, own, ratios, strict=True):
            places = injected_rows(model, one, prompt.ids, prompt.spans)
            if one.placement == "generated":
                places = dict.fromkeys(range(after_bos(model, prompt.ids), len(prompt.ids)), 0)
            here = norms[one.vector.site, one.vector.layer]
            found += [rows[row] / here[position] for position, row in places.items() if rows[row] > 0 < here[position]]
    return [sum(found) / len(found) if found else 0.0 for found in ratios]


def _solved_by_rounds(
    injections: Sequence[Injection],
    shares: Sequence[float],
    strength: Strength,
    measure: Callable[[list[Steering]], Float[np.ndarray, " condition"]],
    first: Float[np.ndarray, " tried"],
) -> list[Solved]:
    searches = [Bracketing(strength.target, share) for share in shares]
    for _ in range(EVALUATIONS):
        asked = {number: search.next(first) for number, search in enumerate(searches) if not search.done()}
        if not asked:
            break
        steering: list[Steering] = [
            Condition((scaled(injections[number], coeff),)) for number, coeffs in asked.items() for coeff in coeffs
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a coefficient overflows the model is part of the answer
            values = iter(measure(steering).tolist())
        for number, coeffs in asked.items():
            found = [next(values) for _ in coeffs]
            searches[number].take(coeffs, [value if math.isfinite(value) else math.inf for value in found])
    return [search.answer(strength.unit) for search in searches]


def coefficients(
    model: HookedModel,
    conditions: Sequence[Condition],
    prompts: Sequence[Prompt],
    asked: Sequence[float | Strength],
) -> list[list[float]]:
    """For each number or strength asked for, the coefficient of every condition; a warning says what is not reached.

    Raises:
        SteerlensError: a strength asked for of a condition of several vectors.
    """
    found: list[list[float]] = []
    for one in asked:
        if not isinstance(one, Strength):
            found.append([one] * len(conditions))
            continue
        if several := [condition.label for condition in conditions if len(condition.injections) != 1]:
            raise SteerlensError(
                f"{one} is solved for one vector, and {several[0]!r:.60} has several; give coefficients as numbers"
            )
        injections = [condition.injections[0] for condition in conditions]
        answers = solved(model, injections, prompts, one)
        found.append([answer.coeff for answer in answers])
        missed = [number for number, answer in enumerate(answers) if not answer.found]
        if missed:
            first, vector = answers[missed[0]], injections[missed[0]].vector
            more = f" (and of {len(missed) - 1} more)" if len(missed) > 1 else ""
            warnings.warn(
                f"{one} of layer {vector.layer}{more} is not reached: {first.why}; coefficient {first.coeff:.3g} "
                "is used",
                stacklevel=3,
            )
    return found


def scaled(injection: Injection, coeff: float) -> Injection:
    """The injection with `coeff` times its vector."""
    return dataclasses.replace(injection, vector=coeff * injection.vector)
