"""`steerlens compare`: methods against each other and against prompting, each at its best and at equal damage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli.options import (
    MODEL,
    Chat,
    ModelOptions,
    SamplingChoice,
    read_layers,
    read_metric,
    read_prompt,
    typed,
)
from steerlens.cli.search import PROMPTS
from steerlens.errors import SteerlensError

SAMPLING = SamplingChoice(n=16, tokens=30)


def compare(
    topic: Annotated[str, typer.Argument(help="A topic that the package has sentences about.")] = "weddings",
    contrast: Annotated[
        Path | None, typer.Option(help="A contrast set (CSV, JSON, JSONL, parquet) in place of those sentences.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A text to continue; repeat it: the last third is held out."),
    ] = None,
    chat: Chat = False,
    words: Annotated[
        str | None, typer.Option(help="Success: a topic, or words separated by commas.", show_default="the topic")
    ] = None,
    methods: Annotated[str, typer.Option(help="'all', or some of mean_difference,pca,probe,lda,trained.")] = "all",
    prompting: Annotated[
        str | None, typer.Option(help="The words to prompt with.", show_default="Talk about the topic.")
    ] = None,
    layers: Annotated[str, typer.Option("--layers", "-l", help="'all', or numbers and ranges: 0,4-6.")] = "all",
    budget: Annotated[int, typer.Option(help="Tokens that each method may spend on the search.")] = 20_000,
    damage: Annotated[float, typer.Option(help="Damage (nats per token) at which all are compared too.")] = 0.5,
    confirm: Annotated[int, typer.Option(help="Completions of each held-out prompt.")] = 20,
    sampling: SamplingChoice = SAMPLING,
    model: ModelOptions = MODEL,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML report, self-contained.")] = None,
    csv: Annotated[Path | None, typer.Option(help="All completions as CSV.")] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Keep completions in this folder; the same command resumes an interrupted comparison."),
    ] = None,
) -> None:
    """Which method steers best, and does it beat asking? On held-out prompts, with intervals and verdicts.

    [bold]Examples[/bold]

      steerlens compare dogs --methods mean_difference,probe --out dogs.html

      steerlens compare --contrast refusal.json --words sorry,cannot --prompting "Refuse." --model smollm2 --chat
    """
    import steerlens as sl
    from steerlens.cli.console import say
    from steerlens.cli.outputs import check_places, write_all
    from steerlens.demo import TOPICS, topic_contrast
    from steerlens.whole_files import write_whole

    check_places(out=out, csv=csv)
    goal, drawn, chosen = read_metric(words or topic), sampling.read(), read_layers(layers)
    if contrast is not None:
        given = sl.ContrastSet.read(contrast)
    elif topic in TOPICS:
        about, neutral = topic_contrast(topic)
        given = sl.ContrastSet.of(zip(about, neutral, strict=True), name=topic)
    else:
        raise SteerlensError(f"there are no sentences about {topic!r}; use one of {', '.join(TOPICS)}, or --contrast")
    loaded = model.load()
    result = sl.compare(
        loaded,
        given,
        [read_prompt(one, chat=chat) for one in prompt or PROMPTS],
        goal=goal,
        methods="all" if methods == "all" else [one.strip() for one in methods.split(",")],  # type: ignore[misc]
        baselines=["random", sl.Prompting(prompting or f"Talk about {topic}.")],
        budget=budget,
        damage=damage,
        confirm=confirm,
        layers=chosen(loaded.cfg.n_layers),
        token="last" if contrast is not None else slice(1, None),
        sampling=drawn,
        storage=store,
    )
    writers = {}
    if csv is not None:
        writers["completions"] = lambda: write_whole(csv, result.completions.to_csv(index=False), "the completions")
    if out is not None:
        writers["report"] = lambda: result.report(out, command=typed())
    lines, problems = write_all(writers)
    pairs = ["", result.pairs.to_string(index=False)] if len(result.pairs) else []
    say("\n".join([repr(result), *pairs, *lines]))
    if problems:
        raise SteerlensError("; ".join(problems))
