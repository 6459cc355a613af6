"""The candidates of a search: directions × layers × operations × placements × strengths, each a ready condition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from steerlens.analysis.directions import Directions
from steerlens.analysis.set_effects import set_effects
from steerlens.analysis.strengths import scaled, solved
from steerlens.arguments import choice, listed, shown
from steerlens.engine.reductions import reduce_next_tokens
from steerlens.errors import SteerlensError
from steerlens.measures.metrics import Better
from steerlens.models import HookedModel
from steerlens.runs.search_ledger import Space
from steerlens.steering import Condition, ContrastSet, Injection, Placement, PromptPair, SteeringVector, mean_difference
from steerlens.steering.layer_vectors import layer_vectors
from steerlens.steering.operations import ALONE, OPERATIONS, Operation
from steerlens.steering.placement import check_fit, check_placement
from steerlens.steering.prompts import Prompt
from steerlens.steering.strengths import Strength, check_strength, norm_share
from steerlens.steering.tokens import continuation_ids

Direction = PromptPair | ContrastSet | SteeringVector | Mapping[int, SteeringVector] | Sequence[SteeringVector]
"""One way to make a direction, at several layers: a pair, a contrast set, or vectors."""

STRENGTHS = tuple(norm_share(round(0.1 * 2 ** (step / 2), 3)) for step in range(11))
"""Shares of the activations' norm, by default: from a tenth to three times their length, in steps of √2."""

# Of less KL than this no next token is another one; of operations that do nothing it is 0.
_NOTICEABLE_KL = 1e-3
# At about this KL of the next token settings that steer all tokens do best.
_LIKELY_KL = 0.5


@dataclass(frozen=True, eq=False)
class Candidate:
    """A setting that the search may try.

    Attributes:
        direction: the name of what the vector is made of.
        injection: ready to use, the coefficient in its vector.
        strength: what the coefficient comes to.
        kl: next-token KL of steering at this setting, mean over the prompts (nats); NaN if it was not looked at.
        shift: by how much the log-probability of the goal's words, taken together, rises as the next token (nats).
    """

    direction: str
    injection: Injection
    strength: Strength
    kl: float = float("nan")
    shift: float = float("nan")

    def looks(self, better: Better = "higher") -> tuple[float, float]:
        """How promising it is by two looks at the next token, higher is better.

        What the goal's words gain (or lose, if fewer of them are better) beyond half of what the whole distribution
        moves; and how near that movement is to half a nat, about where text is still text if every later token is
        steered as well.
        """
        gain = self.shift if better == "higher" else -self.shift
        moved = max(self.kl, 1e-6)  # (NaN stays NaN)
        return gain - 0.5 * self.kl, -abs(math.log(moved / _LIKELY_KL))

    @property
    def condition(self) -> Condition:
        """As `generate` takes it."""
        return Condition((self.injection,), label=self.label)

    @property
    def label(self) -> str:
        """For tables and figures."""
        one = self.injection
        what = "" if one.operation == "add" else f"{one.operation}, "
        return f"{self.direction}: layer {one.vector.layer}, {what}{one.placement}, {self.strength}"

    def columns(self) -> dict[str, Any]:
        """As a row of a frame names it."""
        one = self.injection
        return {
            "direction": self.direction,
            "layer": one.vector.layer,
            "site": one.vector.site,
            "operation": one.operation,
            "placement": str(one.placement),
            "strength": str(self.strength),
            "coeff": one.vector.coeff,
        }


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a search chooses from.

    Attributes:
        all: the candidates.
        space: the same as coordinates.
        left_out: by reason, how many settings were left out beforehand.
    """

    all: tuple[Candidate, ...]
    space: Space
    left_out: dict[str, int]


def candidates_of(
    model: HookedModel,
    directions: object,
    prompts: Sequence[Prompt],
    *,
    layers: Sequence[int] | Literal["all"],
    operations: Sequence[Operation],
    placements: Sequence[Placement] | None,
    strengths: Sequence[Strength],
    words: Sequence[str],
    better: Better = "higher",
    batch_size: int | None = None,
) -> Candidates:
    """Every setting that is worth a sample, after a look at next tokens only.

    Left out are settings that overflow the model, those whose strength cannot be reached (beyond the first such level),
    and those that leave every next token as it was. What is cheap to see orders the rest and prunes no more than that:
    on the embedded model the shift of the next token has a rank correlation of 0.1 with success in sampled text.

    Args:
        words: the goal's; their shift is looked at where the model has a token for them.
        better: whether more or fewer of them are wanted.

    Raises:
        SteerlensError: nothing to try, or nothing left; vectors that do not fit the prompts.
    """
    named = _named(model, directions, layers)
    scale = _scale(strengths)
    left_out: dict[str, int] = {}
    arms = []
    shortest = min(len(prompt) for prompt in prompts)
    for name, arm in _arms(named, operations, placements):
        try:
            check_fit(arm.placement, arm.vector.n_positions, shortest)  # type: ignore[arg-type]
            arms.append((name, arm))
        except SteerlensError as error:
            left_out[str(error)] = left_out.get(str(error), 0) + len(scale)
    found: list[tuple[int, int, Candidate]] = []
    groups: dict[tuple[str, ...], int] = {}
    missed = [False] * len(arms)
    for level, strength in enumerate(scale):
        answers = solved(model, [arm for _, arm in arms], prompts, strength, batch_size=batch_size)
        for place, ((name, arm), answer) in enumerate(zip(arms, answers, strict=True)):
            if not answer.found and (missed[place] or answer.coeff == 0):
                left_out["strength not reached"] = left_out.get("strength not reached", 0) + 1
                continue
            missed[place] = not answer.found
            group = groups.setdefault((name, arm.vector.site, arm.operation, str(arm.placement)), len(groups))
            found.append((group, level, Candidate(name, scaled(arm, answer.coeff), strength)))
    looked = _looked_at(model, [one for _, _, one in found], prompts, words, batch_size=batch_size)
    kept = []
    for (group, level, _), one in zip(found, looked, strict=True):
        reason = ""
        if not np.isfinite(one.kl) and one.injection.placement != "generated":
            reason = "overflows the model"
        elif one.kl < _NOTICEABLE_KL and one.injection.placement not in ("generated", "all", "from_last"):
            reason = "changes no next token"
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            kept.append((group, level, one))
    if not kept:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "there is nothing to try"
        raise SteerlensError(f"no setting is left to search ({why}); give other strengths, layers or directions")
    space = Space(
        group=np.array([group for group, _, _ in kept]),
        layer=np.array([one.injection.vector.layer for _, _, one in kept]),
        level=np.array([level for _, level, _ in kept]),
        cheap=np.array([one.looks(better) for _, _, one in kept]),
    )
    return Candidates(tuple(one for _, _, one in kept), space, left_out)


def _named(model: HookedModel, directions: object, layers: Sequence[int] | Literal["all"]) -> dict[str, list[Any]]:
    """The vectors by the name of what they are made of."""
    if isinstance(directions, Directions):
        directions = directions.vectors
    is_named = isinstance(directions, Mapping) and bool(directions) and all(isinstance(k, str) for k in directions)
    given: dict[str, Any] = dict(directions) if is_named else {"": directions}  # type: ignore[call-overload]
    named = {}
    for name, one in given.items():
        if isinstance(one, ContrastSet):
            one = mean_difference(model, one, layers=layers)
        vectors = layer_vectors(model, one, layers)
        own = name or (str(one) if isinstance(one, PromptPair) else vectors[0].label)
        named[own] = vectors
    return named


def _scale(strengths: object) -> list[Strength]:
    """Strengths of one measure, rising."""
    given = [strengths] if isinstance(strengths, Strength) else listed("strengths", strengths, of="strengths")
    chosen = [check_strength(one) for one in given]
    measures = sorted({one.measure for one in chosen})
    if len(measures) != 1:
        some = f"of {' and '.join(measures)}" if chosen else "no strengths"
        raise SteerlensError(f"strengths must be several of one kind, such as sl.norm_share(0.3), got {some}")
    return sorted(set(chosen), key=lambda one: one.target)


def _arms(
    named: Mapping[str, Sequence[SteeringVector]],
    operations: object,
    placements: object,
) -> list[tuple[str, Injection]]:
    """Every direction, operation and placement, with coefficient 1."""
    given = [operations] if isinstance(operations, str) else listed("operations", operations, of="operations")
    chosen: list[Any] = [choice("operations", one, OPERATIONS) for one in given]
    if not chosen or not set(chosen) <= set(ALONE):
        raise SteerlensError(f"operations must be at least one of {', '.join(ALONE)}, got {shown(given)}")
    places: list[Any] = [None]
    if placements is not None:
        some = isinstance(placements, str | int) or not hasattr(placements, "__iter__")
        places = [placements] if some else listed("placements", placements, of="placements")
        for place in places:
            check_placement(place)
        if not places:
            raise SteerlensError("placements is empty; give at least one, or None for each vector's own")
    return [
        (name, Injection(vector, place, operation))
        for name, vectors in named.items()
        for operation in dict.fromkeys(chosen)
        for place in dict.fromkeys(places)
        for vector in vectors
        if bool(vector.values.any())  # (a pair that differs at its end alone is zero at layer 0 before it)
    ]


def _looked_at(
    model: HookedModel,
    candidates: Sequence[Candidate],
    prompts: Sequence[Prompt],
    words: Sequence[str],
    *,
    batch_size: int | None,
) -> list[Candidate]:
    """The candidates with what a look at the next tokens says of them."""
    some = [place for place, one in enumerate(candidates) if one.injection.placement != "generated"]
    if not some:
        return list(candidates)
    conditions = [Condition(), *(candidates[place].condition for place in some)]
    wanted = _first_tokens(model, words)
    if wanted:
        frame = set_effects(model, prompts, conditions, wanted, batch_size=batch_size)
        table = frame.groupby("condition")[["kl", "effectiveness"]].mean().to_numpy()[1:]
    else:
        kl = reduce_next_tokens(model, prompts, conditions, base=0, batch_size=batch_size).kl
        assert kl is not None
        table = np.stack([kl[1:].cpu().double().mean(1).numpy(), np.full(len(some), np.nan)], axis=1)
    found = list(candidates)
    for place, (kl, shift) in zip(some, table.tolist(), strict=True):
        found[place] = dataclasses.replace(found[place], kl=kl, shift=shift)
    return found


def _first_tokens(model: HookedModel, words: Sequence[str]) -> list[int]:
    """The first tokens of the words as they follow a text; those that are common beginnings are told apart by none."""
    ids = [continuation_ids(model, f" {word}") for word in words]
    whole = [one[0] for one in ids if len(one) == 1]
    return list(dict.fromkeys(whole or [one[0] for one in ids if one]))


def table_of(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """The candidates as a frame, one row each."""
    return pd.DataFrame(
        [{"candidate": n, **one.columns(), "kl": one.kl, "shift": one.shift} for n, one in enumerate(candidates)]
    )
