"""`steerlens reproduce`: the literature's experiments, a page each and one of all."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli.options import MODEL, ModelOptions
from steerlens.errors import SteerlensError


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME…|all]",
            help="perplexity, topic, knowledge, overhead, sentiment, toxicity, gallery.",
            show_default="all",
        ),
    ] = None,
    model: ModelOptions = MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pages, tables and finished parts.")] = Path(
        "results"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Small settings: minutes on the embedded model.")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: an experiment's data (parquet, JSONL, CSV, or a hub name); may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same completions.")] = 0,
) -> None:
    """The ActAdd paper's experiments on any model, with intervals and controls, as one page of results.

    Run again after an interruption, it resumes where it stopped.

    [bold]Examples[/bold]

      steerlens reproduce all --quick

      steerlens reproduce topic perplexity --model gpt2-xl --device cuda

      steerlens reproduce knowledge --data knowledge=conceptnet.parquet --model gpt2-xl
    """
    import steerlens as sl
    from steerlens.cli.console import note, say

    places = {}
    for text in data or []:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise SteerlensError(f"--data {text!r} cannot be read; give NAME=PATH, as in knowledge=conceptnet.parquet")
        places[name] = path
    suite = sl.experiments.reproduce(
        model.load(),
        names or "all",
        folder=out,
        quick=quick,
        data=places,
        seed=seed,
        command=lambda some: _typed(some, model, out=out, quick=quick, data=places, seed=seed),
        tell=note,
    )
    say(f"{len(suite.results)} done in {sum(suite.seconds.values()) / 60:.1f} minutes: {suite.page}")
    if suite.failures:
        raise SteerlensError(f"not done: {'; '.join(f'{name} ({why})' for name, why in suite.failures.items())}")


def _typed(
    names: Sequence[str], model: ModelOptions, *, out: Path, quick: bool, data: Mapping[str, str], seed: int
) -> str:
    """The command that repeats some of the experiments, with the options that are not the defaults."""
    words = ["steerlens", "reproduce", *names]
    for option in dataclasses.fields(model):
        if (value := getattr(model, option.name)) != option.default:
            words += [f"--{option.name}", str(value)]
    words += ["--quick"] * quick
    for name, path in data.items():
        words += ["--data", f"{name}={path}"] if name in names else []
    words += ["--seed", str(seed)] if seed else []
    return shlex.join([*words, "--out", str(out)])
