"""`Sampling`: how completions are drawn, defined once for everything that draws them."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, ParamSpec, TypedDict, TypeVar

from steerlens.arguments import listed, shown, text, whole_number
from steerlens.errors import SteerlensError

P = ParamSpec("P")
R = TypeVar("R")


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments, for functions that people call in a notebook."""

    n: int
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    frequency_penalty: float
    seed: int
    stop_at_end: bool
    stop: str | int | Sequence[str | int]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How many completions, and how each token is drawn; the defaults are those of the ActAdd paper (arXiv 2308.10248).

    n: completions of each prompt under each condition.
    max_new_tokens: the most tokens a completion may have; it may end earlier by itself.
    temperature: 0 takes the largest raw logit and ignores all else.
    top_k: keeps the k most likely tokens, and any tied with the k-th; None keeps all. May exceed the vocabulary.
    top_p: nucleus; 1 (or None) keeps all.
    frequency_penalty: what a token's logit loses, after the division by the temperature, for each time it occurs in the
        row, prompt included. Special tokens and those that end a completion are exempt: a chat template writes them
        once per turn, and a model penalised for that would never end its reply.
    seed: of the random numbers. Sample 7 of a prompt draws the same ones under every condition.
    stop_at_end: end a completion at every token that ends one by the model's own settings
        (`generation_config.eos_token_id`, or else the tokenizer's end of text).
    stop: also end it at these texts and token ids, one or several. A completion does not include what ended it.

    Like TransformerLens' `sample_logits`, except: padding is not counted (there it is); `top_k` and `top_p` both apply
    if both are set, `top_k` first (there `top_k` silently switches `top_p` off); a negative penalty is applied (there
    it is ignored); ties have a fixed order.
    """

    n: int = 1
    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 0.3
    frequency_penalty: float = 1.0
    seed: int = 0
    stop_at_end: bool = True
    stop: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens", "top_k", "seed"):
            value, least = getattr(self, name), None if name == "seed" else 1
            if value is None and name == "top_k":
                continue
            outside = _is_whole(value) and (not -(2**63) <= value < 2**63 if least is None else value < least)
            if not _is_whole(value) or outside:
                wanted = "a whole number of at most 64 bits" if least is None else f"a whole number of at least {least}"
                hint = ", or None to keep all tokens" if name == "top_k" else ""
                raise SteerlensError(f"{name} is {shown(value)}; needs {wanted}{hint}")
            object.__setattr__(self, name, int(value))
        if self.top_p is None:  # off, as top_k=None is
            object.__setattr__(self, "top_p", 1.0)
        for name, wanted, fits in (
            ("temperature", "a finite number >= 0 (0 is greedy)", lambda value: value >= 0),
            ("top_p", "0 < top_p <= 1 (1 keeps all tokens)", lambda value: 0 < value <= 1),
            ("frequency_penalty", "a finite number (0 is none)", lambda value: True),
        ):
            value = getattr(self, name)
            if not _is_finite(value) or not fits(value):
                raise SteerlensError(f"{name} is {shown(value)}; needs {wanted}")
            object.__setattr__(self, name, float(value))
        if not isinstance(self.stop_at_end, bool):
            raise SteerlensError(f"stop_at_end is {shown(self.stop_at_end)}; needs True or False")
        object.__setattr__(self, "stop", _stops(self.stop))

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is always taken; then neither uniforms nor counts are looked at."""
        return self.temperature == 0

    @property
    def needs_counts(self) -> bool:
        """Whether `next_tokens` has to be given counts."""
        return not self.greedy and self.frequency_penalty != 0


def chosen_sampling(given: Sampling | None, options: Mapping[str, Any], *, default: Sampling) -> Sampling:
    """`given` (or `default`) with the fields that `options` name replaced.

    Raises:
        SteerlensError: an option that is not a field of `Sampling`, a value that a field does not accept, or something
            other than a Sampling.
    """
    if given is not None and not isinstance(given, Sampling):
        raise SteerlensError(
            f"sampling is a {type(given).__name__}; give a Sampling, as in sampling=sl.Sampling(n=200)"
        )
    names = [field.name for field in fields(Sampling)]
    for name in options:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the sampling options are {', '.join(names)}"
            raise SteerlensError(f"there is no option {name!r}; {hint}")
    return replace(given or default, **options)


def shows_sampling_options(default: Sampling) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for functions with `**options: Unpack[SamplingOptions]`: their signature shows each option by name.

    So help and completion in a notebook show the names and `default`'s values; the function itself is unchanged.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        types = SamplingOptions.__annotations__
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=getattr(default, field.name),
                annotation=types[field.name],
            )
            for field in fields(Sampling)
        ]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorate


def _stops(given: Any) -> tuple[str | int, ...]:
    """Texts and token ids, each once, in the order given."""
    several = [given] if isinstance(given, str) or _is_whole(given) else listed("stop", given, of="texts or token ids")
    return tuple(
        dict.fromkeys(
            text(f"stop[{place}]", one, empty=False)
            if isinstance(one, str)
            else whole_number(f"stop[{place}]: a text or a token id", one, least=0)
            for place, one in enumerate(several)
        )
    )


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool) and getattr(value, "shape", ()) == ()


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False
