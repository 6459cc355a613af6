"""`ComparisonOptions`: what every experiment takes that compares methods of steering, said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ParamSpec, TypeVar

from steerlens.arguments import finite_number, numbers, whole_number
from steerlens.engine.sampling_settings import (
    Sampling,
    SamplingOptions,
    chosen_sampling,
    shows_sampling_options,
)
from steerlens.experiments.shared.relevance import Embedder
from steerlens.experiments.shared.scorers import Scorer
from steerlens.steering import Placement
from steerlens.steering.extraction.activations import Layers

P = ParamSpec("P")
R = TypeVar("R")


class ComparisonArguments(SamplingOptions, total=False):
    """The fields of `ComparisonOptions` and of `Sampling` as arguments by name."""

    layers: Layers
    coeffs: Sequence[float] | float
    placement: Placement | None
    scorer: Scorer | str | None
    embedder: Embedder | str | None
    validation: int
    disfluency_limit: float | None
    random_draws: int
    chunk: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonOptions:
    """How methods are compared.

    Attributes:
        layers, coeffs: the grid from which a layer and a coefficient are chosen. With one of each, no prompts are
            spent on validation.
        placement: where the vector goes; by default "front", as in the paper.
        scorer: texts → probabilities, or the name of a Hugging Face classifier (`hugging_face_scorer` also takes the
            label); by default the one that ships with the package.
        embedder: for relevance: an `Embedder` or the name of a Hugging Face encoder; by default the unsteered model's
            own activations (`model_embedder`).
        validation: prompts on which layer and coefficient are chosen; they are never reported on.
        disfluency_limit: conditions above this multiple of the unsteered perplexity (geometric mean, validation
            prompts) are not chosen; None lifts the limit. It is not in the paper: a vector strong enough to break the
            text may still please a scorer.
        random_draws: how many random vectors; prompts take turns with them.
        chunk: prompts per stored part.
    """

    layers: Layers = "all"
    coeffs: Sequence[float] | float = (1.0, 3.0, 6.0, 10.0)
    placement: Placement | None = None
    scorer: Scorer | str | None = None
    embedder: Embedder | str | None = None
    validation: int = 100
    disfluency_limit: float | None = 2.0
    random_draws: int = 4
    chunk: int = 50

    def __post_init__(self) -> None:
        object.__setattr__(self, "coeffs", tuple(numbers("coeffs", self.coeffs)))
        object.__setattr__(self, "validation", whole_number("validation", self.validation, least=0))
        object.__setattr__(self, "random_draws", whole_number("random_draws", self.random_draws, least=1))
        object.__setattr__(self, "chunk", whole_number("chunk", self.chunk, least=1))
        if self.disfluency_limit is not None:
            limit = finite_number("disfluency_limit", self.disfluency_limit, above=0)
            object.__setattr__(self, "disfluency_limit", limit)

    def settings(self) -> dict[str, Any]:
        """The grid and what else is plain data, for the settings of a result."""
        return {
            "layers": self.layers if isinstance(self.layers, str) else list(self.layers),
            "coeffs": list(self.coeffs),  # type: ignore[arg-type]
            "placement": "front" if self.placement is None else self.placement,
            "random draws": self.random_draws,
        }


def chosen_options(
    sampling: Sampling | None, arguments: Mapping[str, Any], *, default: Sampling
) -> tuple[Sampling, ComparisonOptions]:
    """The sampling settings and the options that a caller's arguments by name amount to.

    Raises:
        SteerlensError: an argument that is neither a field of `Sampling` nor of `ComparisonOptions`, or a bad value.
    """
    names = {field.name for field in fields(ComparisonOptions)}
    mine = {name: value for name, value in arguments.items() if name in names}
    rest = {name: value for name, value in arguments.items() if name not in names}
    return chosen_sampling(sampling, rest, default=default), ComparisonOptions(**mine)


def shows_comparison_options(default: Sampling) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for functions with `**options: Unpack[ComparisonArguments]`: their signature shows each by name."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        shown = shows_sampling_options(default)(function)
        signature = inspect.signature(shown)
        types = ComparisonArguments.__annotations__
        more = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
            )
            for field in fields(ComparisonOptions)
        ]
        shown.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # type: ignore[attr-defined]
        return shown

    return decorate
