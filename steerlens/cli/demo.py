"""`steerlens demo`: a sweep over the layers of the embedded model, and beside it what a search finds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerlens.cli.options import MODEL, PAIR_HELP, PROMPT, SAMPLING, ModelOptions, Prompt, SamplingChoice, read_metric
from steerlens.cli.sweep import Csv, deliver
from steerlens.errors import SteerlensError

if TYPE_CHECKING:
    from steerlens.engine import Sampling
    from steerlens.measures.metrics import Metric
    from steerlens.models import HookedModel
    from steerlens.runs.confirming import Confirmation
    from steerlens.runs.swept import Sweep

METHODS = ("actadd", "mean-difference")

# Of the search: completions of each prompt that a setting gets at most, and of all settings together.
_SAMPLES, _COMPLETIONS = 8, 800


def demo(
    positive: Annotated[str, typer.Option(help=f"Steer towards this. {PAIR_HELP}")] = " weddings",
    negative: Annotated[str, typer.Option(help="Steer away from this.")] = " ",
    prompt: Prompt = PROMPT,
    words: Annotated[str, typer.Option(help="A topic, or words separated by commas.")] = "weddings",
    coeff: Annotated[
        list[float] | None,
        typer.Option("--coeff", "-c", help="Coefficient of the vector; may be repeated.", show_default="1 and 4, or 2"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="actadd (the pair, in front) or mean-difference (sentences about the topic, everywhere).",
            show_default="actadd on the embedded model, else mean-difference",
        ),
    ] = None,
    search: Annotated[
        bool | None,
        typer.Option(
            help="Search for a better setting too, with vectors of the topic's sentences.",
            show_default="on the embedded model, if the topic has sentences",
        ),
    ] = None,
    sampling: SamplingChoice = SAMPLING,
    model: ModelOptions = MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML report, self-contained.")] = Path("weddings.html"),
    csv: Csv = None,
) -> None:
    """A sweep over the embedded model: at which layer does a " weddings" vector make it talk about weddings?

    The settings are the ActAdd paper's: 200 completions of 40 tokens for every layer and for the unsteered model,
    temperature 1, top-p 0.3, frequency penalty 1; a random vector of equal norm at every layer is the control.

    The paper's recipe is one word in front of the prompt. Beside it stands what a short search on other prompts finds
    (among mean differences of the topic's sentences and vectors trained on them): as many completions of the same
    prompt, with the damage of both.

    The recipe does little on some models (SmolLM2 among them). On all but the embedded one the vector is therefore the
    mean difference between five sentences about the topic and five about nothing in particular, added at every
    position, at six layers in the later two thirds.

    [bold]Examples[/bold]

      steerlens demo

      steerlens demo --positive " war" --words war --coeff 4 --out war.html

      steerlens demo --model smollm2 --dtype bfloat16 --n 50
    """
    from steerlens.cli.outputs import check_places
    from steerlens.demo import TOPICS

    check_places(out=out, csv=csv)
    chosen = method or (METHODS[0] if model.model == "demo" else METHODS[1])
    if chosen not in METHODS:
        raise SteerlensError(f"--method {chosen!r} is unknown; use actadd or mean-difference")
    searching = (model.model == "demo" and words in TOPICS) if search is None else search
    if words not in TOPICS and (searching or chosen == METHODS[1]):
        instead = "--no-search" if chosen == METHODS[0] else "--method actadd"
        raise SteerlensError(
            f"there are no sentences about --words {words!r}; use one of {', '.join(TOPICS)}, or {instead}"
        )
    drawn, metric = sampling.read(), read_metric(words)
    loaded = model.load()
    started = time.perf_counter()
    if chosen == METHODS[0]:
        result = _in_front(loaded, positive, negative, prompt, coeff or [1.0, 4.0], metric, drawn)
    else:
        result = _everywhere(loaded, words, prompt, coeff or [2.0], metric, drawn)
    seconds = time.perf_counter() - started
    found = _searched(loaded, words, prompt, metric, drawn) if searching else None
    deliver(result, seconds, out=out, csv=csv, confirmed=found)


def _in_front(
    model: HookedModel,
    positive: str,
    negative: str,
    prompt: str,
    coeffs: list[float],
    metric: Metric,
    sampling: Sampling,
) -> Sweep:
    """The sweep of the paper's recipe."""
    import steerlens as sl

    pair = sl.PromptPair(positive, negative)
    return sl.sweep(model, pair, prompt, coeffs=coeffs, metrics=[metric], sampling=sampling)


def _everywhere(
    model: HookedModel, topic: str, prompt: str, coeffs: list[float], metric: Metric, sampling: Sampling
) -> Sweep:
    """The sweep of the mean difference of the shipped sentences about a topic."""
    import steerlens as sl
    from steerlens.demo import topic_contrast

    n_layers = model.cfg.n_layers
    layers = sorted({round(n_layers * (1 / 3 + 2 / 3 * i / 6)) for i in range(6)})
    # Averaged over all tokens: that of the last token is mostly about the full stop.
    vectors = sl.mean_difference(model, *topic_contrast(topic), layers=layers, token=slice(1, None))
    return sl.sweep(model, vectors, prompt, coeffs=coeffs, metrics=[metric], sampling=sampling)


def _searched(model: HookedModel, topic: str, prompt: str, metric: Metric, sampling: Sampling) -> Confirmation | None:
    """What a search on other prompts finds, confirmed with as many completions of this one as the sweep has."""
    from dataclasses import replace

    import steerlens as sl
    from steerlens.cli.search import PROMPTS, topic_directions

    others = [one for one in PROMPTS if one != prompt]
    n_layers = model.cfg.n_layers
    return sl.search(
        model,
        topic_directions(model, topic, range(n_layers // 3, n_layers)),
        others,
        goal=metric,
        budget=_COMPLETIONS * sampling.max_new_tokens,
        held_out=prompt,
        confirm=sampling.n,
        sampling=replace(sampling, n=_SAMPLES),
    ).confirmed
