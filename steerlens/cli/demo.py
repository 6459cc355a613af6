"""`steerlens demo`: the main job on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli.options import MODEL, PAIR_HELP, PROMPT, SAMPLING, ModelOptions, Prompt, SamplingChoice
from steerlens.cli.sweep import Csv, sweep


def demo(
    positive: Annotated[str, typer.Option(help=f"Steer towards this. {PAIR_HELP}")] = " weddings",
    negative: Annotated[str, typer.Option(help="Steer away from this.")] = " ",
    prompt: Prompt = PROMPT,
    words: Annotated[str, typer.Option(help="A topic or words with commas.")] = "weddings",
    coeff: Annotated[
        list[float] | None, typer.Option("--coeff", "-c", help="How strong; may be repeated.", show_default="1 and 4")
    ] = None,
    sampling: SamplingChoice = SAMPLING,
    model: ModelOptions = MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML report, self-contained.")] = Path("weddings.html"),
    csv: Csv = None,
) -> None:
    """The main job on the embedded model: at which layer does a " weddings" vector make a model talk of weddings?

    The settings are the ActAdd paper's: 200 completions of 40 tokens for every layer and for the unsteered model,
    temperature 1, top-p 0.3, frequency penalty 1; a random vector of equal norm at every layer is the control.

    [bold]Examples[/bold]

      steerlens demo

      steerlens demo --positive " war" --words war --coeff 4 --out war.html
    """
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
