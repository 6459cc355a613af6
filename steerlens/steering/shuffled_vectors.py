"""Shuffled contrasts: vectors made of the same texts in the same way, from labels that mean nothing."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.arguments import seed_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.contrast_sets import NOTHING_TO_SHUFFLE, ContrastSet, exchanged
from steerlens.steering.extraction.mean_difference import mean_difference
from steerlens.steering.extraction.token_choice import recorded_token
from steerlens.steering.layer_vectors import is_pairs, layer_vectors
from steerlens.steering.pairs import PromptPair
from steerlens.steering.vectors import SteeringVector


def shuffled_vectors(
    model: HookedModel, what: Any, vectors: Sequence[SteeringVector], *, seed: int
) -> dict[int, SteeringVector]:
    """By layer, the vectors of the shuffled contrast, each row as long as that of the vector it stands beside.

    A direction that the texts have in common with a meaningful one, but for the meaning: what a vector of the same
    length does that is made of the very same activations. The labels are those of `ContrastSet.shuffled`.

    Args:
        what: what `vectors` were made of: a ContrastSet, or several PromptPairs; or vectors that record their texts
            (`mean_difference` of two lists does).

    Raises:
        SteerlensError: nothing to shuffle: one pair, or vectors that do not record what they were made of.
    """
    seed = seed_number(seed)
    layers = [vector.layer for vector in vectors]
    if isinstance(what, PromptPair) or (is_pairs(what) and len(what) < 2):
        raise SteerlensError(NOTHING_TO_SHUFFLE)
    if is_pairs(what):
        changed = set(random.Random(seed).sample(range(len(what)), len(what) // 2))
        pairs = [
            PromptPair(pair.negative, pair.positive, pair.pad) if number in changed else pair
            for number, pair in enumerate(what)
        ]
        found: Mapping[int, SteeringVector] = {one.layer: one for one in layer_vectors(model, pairs, layers)}
    elif isinstance(what, ContrastSet):
        found = {one.layer: one for one in layer_vectors(model, what.shuffled(seed=seed), layers)}
    else:
        found = _made_again(model, vectors, seed=seed)
    return {vector.layer: as_long_as(found[vector.layer], vector) for vector in vectors}


def as_long_as(vector: SteeringVector, other: SteeringVector) -> SteeringVector:
    """The vector with every row as long as that of `other`, and its coefficient; rows that are zero stay zero.

    Raises:
        SteerlensError: they span different numbers of positions.
    """
    if vector.values.shape != other.values.shape:
        raise SteerlensError(
            f"a vector of shape {list(vector.values.shape)} cannot stand beside one of {list(other.values.shape)}"
        )
    lengths = vector.norms.clamp(min=1e-30)
    values = vector.values * (other.norms.to(vector.values.device) / lengths)[:, None]
    return dataclasses.replace(
        other,
        values=values,
        label="shuffled contrast",
        source={"method": "shuffled", "of": vector.describe(), "like": other.describe()},
    )


def _made_again(model: HookedModel, vectors: Sequence[SteeringVector], *, seed: int) -> Mapping[int, SteeringVector]:
    sources = [vector.source for vector in vectors]
    first = sources[0]
    if any(source != first for source in sources) or first.get("method") != "mean_difference":
        raise SteerlensError("these vectors do not say which texts they were made of; give the ContrastSet itself")
    if not all(isinstance(first.get(side), list) for side in ("positives", "negatives")):
        raise SteerlensError("vectors of a ContrastSet do not carry its texts; give the set itself")
    sides = exchanged(first["positives"], first["negatives"], random.Random(seed))
    layers = [vector.layer for vector in vectors]
    sites = {vector.site for vector in vectors}
    if len(sites) > 1:
        raise SteerlensError("these vectors are of several sites; give those of one")
    token = recorded_token(str(first["token"]))
    return mean_difference(model, *sides, layers=layers, token=token, site=sites.pop())
