"""Options that commands share, each said once, and how the text of an option is read."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from steerlens.errors import SteerlensError
from steerlens.progress import at_work

if TYPE_CHECKING:
    from steerlens.engine import Sampling
    from steerlens.measures.metrics import Metric
    from steerlens.models import HookedModel

PAIR_HELP = "Mind the spaces: tokens of most models begin with one."
PROMPT = "I went up to my friend and said"

Prompt = Annotated[str, typer.Option("--prompt", "-p", help="The text to continue.")]
Chat = Annotated[bool, typer.Option("--chat", help="The prompt is a user's turn in a chat; the model answers.")]
System = Annotated[str | None, typer.Option("--system", help="What the system prompt of the chat says; with --chat.")]
PlacementOption = Annotated[
    str, typer.Option(help="front, mid, back, last, all, prompt, generated, from_last, a role of a chat, or an index.")
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: Annotated[
        str,
        typer.Option("--model", "-m", help="'demo' (embedded), a Hugging Face name such as gpt2-xl, or a directory."),
    ] = "demo"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto.")] = "float32"

    def load(self) -> HookedModel:
        """The model."""
        import steerlens as sl
        from steerlens.cli.console import note

        note(f"loading {self.model} …")
        with at_work(f"loading {self.model}"):
            return sl.load_model(self.model, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class SamplingChoice:
    """How completions are drawn: `steerlens.Sampling` in options."""

    n: Annotated[int, typer.Option("--n", "-n", help="Completions per condition and prompt.")] = 200
    tokens: Annotated[int, typer.Option(help="New tokens per completion, at most.")] = 40
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0
    top_k: Annotated[int | None, typer.Option("--top-k", help="Keep the k most likely tokens.", show_default="all")] = (
        None
    )
    top_p: Annotated[float, typer.Option("--top-p", help="Nucleus; 1 keeps all.")] = 0.3
    frequency_penalty: Annotated[
        float, typer.Option(help="Subtracted from a token's logit each time it has occurred.")
    ] = 1.0
    seed: Annotated[int, typer.Option(help="Same seed, same completions.")] = 0

    def read(self) -> Sampling:
        """The value that the package takes.

        Raises:
            SteerlensError: a number out of range.
        """
        from steerlens.engine import Sampling

        given = dataclasses.asdict(self)
        return Sampling(max_new_tokens=given.pop("tokens"), **given)


MODEL, SAMPLING = ModelOptions(), SamplingChoice()
"""What these options are where a command does not say otherwise."""


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each of its parameters that is a group of options (above) spread into these.

    The group's default value in the signature says what the options are by default.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters, groups = [], {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not dataclasses.is_dataclass(kind):
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        assert isinstance(kind, type)
        groups[parameter.name] = kind
        types = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            default = getattr(parameter.default, field.name)
            parameters.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name]
                )
            )

    @functools.wraps(command)
    def spreaded(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in dataclasses.fields(kind)})
        command(**given)

    spreaded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spreaded.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return spreaded


def read_layers(text: str) -> Callable[[int], Sequence[int] | Literal["all"]]:
    """A function of a model's number of layers that gives the layers that `text` names.

    Raises:
        SteerlensError: text that cannot be read (at once), a layer that the model does not have (then).
    """
    if text.strip() == "all":
        return lambda n_layers: "all"
    ranges = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?", part)
        if found is None:
            raise SteerlensError(f"--layers {text!r} cannot be read; give 'all', or numbers and ranges such as 0,4-6")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise SteerlensError(f"--layers {text!r}: {first}-{last} holds no layer; give the smaller number first")
        ranges.append(range(first, last + 1))

    def of_a_model(n_layers: int) -> Sequence[int]:
        for one in ranges:
            if one[-1] >= n_layers:
                raise SteerlensError(
                    f"--layers {text!r}: layer {one[-1]} is out of range; the model has layers 0 to {n_layers - 1}"
                )
        return list(dict.fromkeys(layer for one in ranges for layer in one))

    return of_a_model


def read_controls(text: str, words: str | None) -> Any:
    """The controls of a run: names separated by commas, and the words of prompting, if given (the package has both)."""
    import steerlens as sl

    names = ["random", "shuffled", "negated", "prompting"] if text.strip() == "standard" else text.split(",")
    given: list[Any] = [name.strip() for name in names if name.strip()]
    if words is None:
        return given
    return [*(name for name in given if name != "prompting"), sl.Prompting(words)]


def read_placement(text: str) -> Any:
    """A placement: a number or a word (which words there are, the package knows)."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text.strip()) else text


def read_prompt(text: str, *, chat: bool, system: str | None = None) -> Any:
    """A prompt: the text itself, or a chat of which it is the user's turn, after what the system says.

    Raises:
        SteerlensError: a system prompt for what is no chat.
    """
    if system is not None and not chat:
        raise SteerlensError("--system goes with --chat: a text has no system prompt; add --chat, or leave it out")
    said = [] if system is None else [{"role": "system", "content": system}]
    return [*said, {"role": "user", "content": text}] if chat else text


def read_metric(words: str) -> Metric:
    """Whether a completion holds one of the words, or a word of the topic.

    Raises:
        SteerlensError: no word.
    """
    from steerlens.measures import metrics

    given = [word.strip() for word in words.split(",") if word.strip()]
    if not given:
        raise SteerlensError(f"--words {words!r} names no word; give a topic, or words separated by commas")
    return metrics.words(*given)


def typed() -> str:
    """The command as it was typed, for the page to repeat."""
    return shlex.join(["steerlens", *sys.argv[1:]])
