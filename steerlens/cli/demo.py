"""`steerlens demo`: the main job on the embedded model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli.options import MODEL, PAIR_HELP, PROMPT, SAMPLING, ModelOptions, Prompt, SamplingChoice
from steerlens.cli.sweep import Csv, deliver, sweep
from steerlens.errors import SteerlensError


def demo(
    positive: Annotated[str, typer.Option(help=f"Steer towards this. {PAIR_HELP}")] = " weddings",
    negative: Annotated[str, typer.Option(help="Steer away from this.")] = " ",
    prompt: Prompt = PROMPT,
    words: Annotated[str, typer.Option(help="A topic or words with commas.")] = "weddings",
    coeff: Annotated[
        list[float] | None,
        typer.Option("--coeff", "-c", help="How strong; may be repeated.", show_default="1 and 4, or 2"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="actadd (the pair, in front) or mean-difference (sentences about the topic, everywhere).",
            show_default="actadd on the embedded model, else mean-difference",
        ),
    ] = None,
    sampling: SamplingChoice = SAMPLING,
    model: ModelOptions = MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML report, self-contained.")] = Path("weddings.html"),
    csv: Csv = None,
) -> None:
    """The main job on the embedded model: at which layer does a " weddings" vector make a model talk of weddings?

    The settings are the ActAdd paper's: 200 completions of 40 tokens for every layer and for the unsteered model,
    temperature 1, top-p 0.3, frequency penalty 1; a random vector of equal norm at every layer is the control.

    The paper's recipe, one word in front of the prompt, does little on some models (SmolLM2 among them). On any but the
    embedded one the vector is therefore the mean difference of five sentences about the topic and five about nothing,
    added everywhere, at six layers of the later two thirds.

    [bold]Examples[/bold]

      steerlens demo

      steerlens demo --positive " war" --words war --coeff 4 --out war.html

      steerlens demo --model smollm2 --dtype bfloat16 --n 50
    """
    chosen = method or ("actadd" if model.model == "demo" else "mean-difference")
    if chosen == "mean-difference":
        _everywhere(words, prompt, coeff or [2.0], sampling, model, out, csv)
        return
    if chosen != "actadd":
        raise SteerlensError(f"--method {chosen!r} is unknown; use actadd or mean-difference")
    sweep(
        positive=positive,
        negative=negative,
        prompt=[prompt],
        words=words,
        coeff=coeff or [1.0, 4.0],
        sampling=sampling,
        model=model,
        out=out,
        csv=csv,
    )


def _everywhere(
    words: str,
    prompt: str,
    coeffs: list[float],
    sampling: SamplingChoice,
    model: ModelOptions,
    out: Path,
    csv: Path | None,
) -> None:
    """The sweep of the mean difference of the shipped sentences about a topic."""
    import steerlens as sl
    from steerlens.cli.outputs import check_places
    from steerlens.demo import TOPICS, topic_contrast

    check_places(out=out, csv=csv)
    if words not in TOPICS:
        raise SteerlensError(
            f"there are no sentences about --words {words!r}; use one of {', '.join(TOPICS)}, or --method actadd"
        )
    drawn, metric = sampling.read(), sl.metrics.topic(words)
    loaded = model.load()
    n_layers = loaded.cfg.n_layers
    layers = sorted({round(n_layers * (1 / 3 + 2 / 3 * i / 6)) for i in range(6)})
    # Averaged over all tokens: that of the last token is mostly about the full stop.
    vectors = sl.mean_difference(loaded, *topic_contrast(words), layers=layers, token=slice(1, None))
    started = time.perf_counter()
    result = sl.sweep(loaded, vectors, prompt, coeffs=coeffs, metrics=[metric], sampling=drawn)
    deliver(result, time.perf_counter() - started, out=out, csv=csv)
