"""What directions between two classes of activations have in common: their length, and how they become vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.models import HookedModel, Site, heads_at, stamp
from steerlens.steering.vectors import SteeringVector


def scaled_to_means(
    direction: Float[Tensor, " width"], positive: Float[Tensor, "n width"], negative: Float[Tensor, "m width"]
) -> Float[Tensor, " width"]:
    """The direction v̂ with the length and sign that take the mean of the negatives, along v̂, to that of the positives.

    That is v̂ (v̂ · Δ) with Δ = mean(positive) − mean(negative): coefficient 1 means the same for all methods, and the
    classes determine the sign. Zero if the means do not differ along the direction, or if there is no direction.
    """
    length = direction.norm()
    if float(length) == 0.0:
        return direction
    unit = direction / length
    return unit * (unit @ (positive.to(unit).mean(0) - negative.to(unit).mean(0)))


def as_vectors(
    model: HookedModel,
    directions: Mapping[int, Float[Tensor, " width"]],
    *,
    label: str,
    source: Mapping[str, Any],
    by_layer: Mapping[int, Mapping[str, Any]] | None = None,
    site: Site = "resid_pre",
) -> dict[int, SteeringVector]:
    """One-position vectors placed at `"all"`, by layer; `by_layer` is what their sources record besides `source`."""
    origin = stamp(model)
    return {
        layer: SteeringVector(
            values=direction[None],
            layer=layer,
            model=origin,
            label=label,
            placement="all",
            source={**source, **(by_layer or {}).get(layer, {})},
            site=site,
            heads=heads_at(model, site),
        )
        for layer, direction in directions.items()
    }
