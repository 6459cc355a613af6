"""What the explorer can make a vector of: the pair that is typed, or the contrast sets that are shipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from steerlens.demo import DATA, TOPICS, topic_contrast
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering import ContrastSet, PromptPair, SteeringVector, actadd, mean_difference, pca, probe

Method = Literal["actadd", "mean_difference", "pca", "probe"]
METHODS: dict[Method, str] = {
    "actadd": "pair of prompts (ActAdd)",
    "mean_difference": "difference of means (CAA)",
    "pca": "principal component (RepE)",
    "probe": "linear probe",
}
SETS = (*TOPICS, "sentiment")
"""The shipped contrasts: five sentences about a topic and five about nothing in particular; film reviews' openings."""


def contrast_set(name: str) -> ContrastSet:
    """The shipped contrast of this name (one of `SETS`)."""
    if name == "sentiment":
        return ContrastSet.read(DATA / "sentiment_openings.jsonl", name=name)
    return ContrastSet.of(zip(*topic_contrast(name), strict=True), name=name)


def vectors_of(model: HookedModel, method: Method, pair: PromptPair | None, contrast: str) -> dict[int, SteeringVector]:
    """The vectors of all layers by a method: of the pair for `"actadd"`, of the contrast set for the others.

    Raises:
        SteerlensError: both prompts of the pair are empty; a method that the set does not go with.
    """
    if method == "actadd":
        if pair is None:
            raise SteerlensError("both prompts of the pair are empty; type at least one")
        return actadd(model, pair, layers="all")
    makers: dict[str, Callable[..., Any]] = {"mean_difference": mean_difference, "pca": pca, "probe": probe}
    found: dict[int, SteeringVector] = makers[method](model, contrast_set(contrast), layers="all")
    return found


def code_of(method: Method, contrast: str) -> tuple[list[str], list[str]]:
    """The Python lines that import what the contrast set needs, and those that make `contrast` and `vectors` of it."""
    if contrast == "sentiment":
        imports = ["from steerlens.demo import DATA"]
        made = 'contrast = sl.ContrastSet.read(DATA / "sentiment_openings.jsonl", name="sentiment")'
    else:
        imports = ["from steerlens.demo import topic_contrast"]
        made = f'contrast = sl.ContrastSet.of(zip(*topic_contrast("{contrast}"), strict=True), name="{contrast}")'
    return imports, [made, f'vectors = sl.{method}(model, contrast, layers="all")']
