"""The methods that a comparison takes: each makes vectors of one contrast at many layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from steerlens.arguments import listed, shown
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering import ContrastSet, PromptPair, SteeringVector, actadd, mean_difference, pca, probe, trained
from steerlens.steering.extraction.activations import which_layers
from steerlens.steering.extraction.lessons import NothingLearned
from steerlens.steering.extraction.token_choice import Token
from steerlens.steering.layer_vectors import is_pairs

Method = Literal["actadd", "mean_difference", "pca", "probe", "lda", "trained"]
# Training takes a backward pass per step: few layers, where topics and styles are steered best on models of any depth.
_TRAINED_AT = (0.53, 0.67, 0.8)
_FEW = 20


def trained_vectors(
    model: HookedModel, contrast: ContrastSet, *, layers: Sequence[int] | Literal["all"], token: Token = "last"
) -> dict[int, SteeringVector]:
    """A trained vector at three of the layers, from about the middle on; by layer.

    Towards the positive texts; by preference where they are chats or answers to a context (see `trained`).

    Args:
        token: of no meaning here: all tokens are trained on.

    Raises:
        SteerlensError: nothing was learned at any of them (a layer where that is so is left out), or see `trained`.
    """
    chosen = which_layers(model, None, layers)
    at = dict.fromkeys(chosen[min(int(share * len(chosen)), len(chosen) - 1)] for share in _TRAINED_AT)
    plain = not contrast.context and all(isinstance(one, str) for one in contrast.positive)
    targets = list(contrast.positive) if plain else contrast
    # Of few texts none can be spared to say when to stop: a fixed number of steps, before they are learned by heart.
    few = len(contrast.positive) < _FEW
    how: dict[str, Any] = {"steps": 20, "held_out": 0} if few else {"steps": 60, "held_out": 0.25}
    found, reasons = {}, []
    for layer in at:
        try:
            found[layer] = trained(model, targets, layer=layer, progress=False, **how)
        except NothingLearned as reason:
            reasons.append(reason)
    if not found:
        raise reasons[0]
    return found


_OF_SETS: dict[str, Callable[..., Any]] = {
    "mean_difference": mean_difference,
    "pca": pca,
    "probe": probe,
    "lda": lambda model, contrast, **how: probe(model, contrast, kind="lda", **how),
    "trained": trained_vectors,
}
METHODS = ("actadd", *_OF_SETS)


def vectors_by_method(
    model: HookedModel,
    contrast: Any,
    methods: object,
    *,
    layers: Sequence[int] | Literal["all"],
    token: Token,
) -> tuple[dict[str, Sequence[SteeringVector]], list[str]]:
    """The vectors of each method, by its name, and a sentence for each that the contrast is not enough for.

    Args:
        methods: `"all"`, some of `METHODS`, or a mapping from names to vectors.

    Raises:
        SteerlensError: an unknown method, or no method left.
    """
    if isinstance(methods, Mapping):
        given = {str(name): list(one.values()) if isinstance(one, Mapping) else one for name, one in methods.items()}
        if not given:
            raise SteerlensError("methods is empty; give at least one, or 'all'")
        return {name: listed(f"methods[{name!r}]", one, of="steering vectors") for name, one in given.items()}, []
    names = list(METHODS) if methods == "all" and isinstance(methods, str) else listed("methods", methods, of="names")
    for name in names:
        if name not in METHODS:
            raise SteerlensError(f"methods holds {shown(name)}; use 'all', some of {', '.join(METHODS)}, or vectors")
    found: dict[str, Sequence[SteeringVector]] = {}
    left_out = []
    pairs = isinstance(contrast, PromptPair) or is_pairs(contrast)
    if not pairs and not isinstance(contrast, ContrastSet):
        raise SteerlensError(f"contrast must be a ContrastSet or a PromptPair, got {shown(contrast)}")
    for name in dict.fromkeys(names):
        try:
            if name == "actadd":
                if not pairs:
                    raise SteerlensError("a ContrastSet is no pair of prompts; give vectors: methods={'actadd': …}")
                made = actadd(model, contrast, layers=layers)
            elif pairs:
                raise SteerlensError("it needs a ContrastSet")
            else:
                made = _OF_SETS[name](model, contrast, layers=layers, token=token)
            found[name] = [one for one in made.values() if bool(one.values.any())]
        except SteerlensError as error:
            left_out.append(f"no {name}: {error}")
    if not any(found.values()):
        raise SteerlensError(f"no method is left to compare ({'; '.join(left_out)})")
    return {name: one for name, one in found.items() if one}, left_out
