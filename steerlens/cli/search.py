"""`steerlens search`: which setting steers best, found with few samples, confirmed on held-out prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from steerlens.cli.options import (
    MODEL,
    PAIR_HELP,
    Chat,
    ModelOptions,
    SamplingChoice,
    read_layers,
    read_metric,
    read_placement,
    read_prompt,
    typed,
)
from steerlens.errors import SteerlensError

if TYPE_CHECKING:
    from steerlens.models import HookedModel
    from steerlens.runs.search_result import Search

PROMPTS = (
    "I went up to my friend and said",
    "The weather today is",
    "We spent the whole evening talking about",
    "Last year my brother told me that",
    "When I woke up this morning,",
    "On the way home she stopped and",
)
"""What a search is made on unless the command says otherwise; the last two are held out."""

SAMPLING = SamplingChoice(n=16, tokens=30)


def search(
    positive: Annotated[
        str, typer.Argument(help=f"Steer towards this: a pair's text, or a topic that has sentences. {PAIR_HELP}")
    ] = " weddings",
    negative: Annotated[str, typer.Argument(help="Steer away from this.")] = " ",
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A text to continue; repeat it: the last third is held out."),
    ] = None,
    chat: Chat = False,
    words: Annotated[
        str | None,
        typer.Option(
            help="Success: a topic (weddings, war, music, …) or words separated by commas.",
            show_default="the positive prompt",
        ),
    ] = None,
    layers: Annotated[str, typer.Option("--layers", "-l", help="'all', or numbers and ranges: 0,4-6.")] = "all",
    placement: Annotated[
        list[str] | None, typer.Option(help="Where vectors go; may be repeated.", show_default="each one's own")
    ] = None,
    budget: Annotated[int, typer.Option(help="Tokens to sample.")] = 100_000,
    minutes: Annotated[float | None, typer.Option(help="Stop choosing after this time, too.")] = None,
    confirm: Annotated[int, typer.Option(help="Completions of each held-out prompt; 0 leaves it out.")] = 50,
    training: Annotated[
        bool, typer.Option(help="Train a vector at three layers too, on the sentences about the topic.")
    ] = True,
    strategy: Annotated[
        str, typer.Option(help="How settings are chosen: ordered+halving, random+halving, tpe+halving, random, tpe.")
    ] = "ordered+halving",
    sampling: SamplingChoice = SAMPLING,
    model: ModelOptions = MODEL,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Rows decoded together.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML report, self-contained.")] = None,
    csv: Annotated[Path | None, typer.Option(help="All completions as CSV.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep completions in this file; the same command resumes an interrupted search.")
    ] = None,
) -> None:
    """Which setting steers best? Layer, strength and kind of vector, on topic AND fluent, on held-out prompts.

    Tries the pair's vectors, and for a topic that the package has sentences about also their mean difference and
    vectors trained on them.

    [bold]Examples[/bold]

      steerlens search " weddings" --out weddings.html

      steerlens search " dogs" --model smollm2 --dtype bfloat16 --layers 12-28 --minutes 15

      steerlens search "Love" "Hate" --words love,loved,loves --prompt "I hate you because" --prompt "They said that"
    """
    import steerlens as sl
    from steerlens.cli.outputs import check_places
    from steerlens.runs.store import Store
    from steerlens.steering.prompting import prompting_of

    check_places(out=out, csv=csv, store=store)
    if store is not None:
        with Store(store):  # whether it can be used, before the model is loaded
            pass
    metric = read_metric(words if words is not None else positive.strip())
    chosen, drawn = read_layers(layers), sampling.read()
    loaded = model.load()
    started = time.perf_counter()
    result = sl.search(
        loaded,
        _directions(loaded, positive, negative, chosen(loaded.cfg.n_layers), training=training),
        [read_prompt(text, chat=chat) for text in prompt or PROMPTS],
        goal=metric,
        budget=budget,
        minutes=minutes,
        layers=chosen(loaded.cfg.n_layers),
        placements=None if placement is None else [read_placement(one) for one in placement],
        confirm=confirm,
        prompting=prompting_of(sl.PromptPair(positive, negative)),
        strategy=strategy,  # type: ignore[arg-type]  # checked there
        sampling=drawn,
        storage=store,
        batch_size=batch_size,
    )
    deliver(result, time.perf_counter() - started, out=out, csv=csv)


def deliver(result: Search, seconds: float, *, out: Path | None, csv: Path | None) -> None:
    """Write the files of a search, then print it.

    Raises:
        SteerlensError: a file could not be written; the others are, and the table is printed.
    """
    from steerlens.cli.console import say
    from steerlens.cli.outputs import write_all
    from steerlens.whole_files import write_whole

    writers: dict[str, Any] = {}
    if csv is not None:
        writers["completions"] = lambda: write_whole(csv, result.completions.to_csv(index=False), "the completions")
    if out is not None:
        writers["report"] = lambda: result.report(out, command=typed())
    lines, problems = write_all(writers)
    say(told(result))
    say("\n".join([f"{len(result.completions):,} completions in {seconds:.0f} s", *lines]))
    if problems:
        raise SteerlensError("; ".join(problems))


def told(result: Search) -> str:
    """A search as text for a terminal: the settings that did best, the one chosen, and its confirmation."""
    from steerlens.cli.console import table

    columns = ["layer", "placement", "strength", "coeff", "completions", "on topic", "surprise", "on topic and fluent"]
    most = result.candidates["n"].max() / 2
    best = result.candidates[result.candidates["n"] >= most].sort_values("success", ascending=False).head(8)
    cells = [
        [
            *(str(row["layer"]), row["placement"], row["strength"], f"{row['coeff']:.3g}", str(row["n"])),
            *(f"{row['effect']:.0%}", f"{row['surprise']:.2f}", f"{row['success']:.0%}"),
        ]
        for _, row in best.iterrows()
    ]
    return f"\n{table(f'Search: {result.title}', columns, cells)}\n{result!r}\n"


def _directions(
    model: HookedModel, positive: str, negative: str, layers: Sequence[int] | Literal["all"], *, training: bool
) -> dict[str, Any]:
    """The pair, and the vectors of the sentences about a topic of that name."""
    import steerlens as sl
    from steerlens.demo import TOPICS

    found: dict[str, Any] = {f"{positive!r} − {negative!r}": sl.PromptPair(positive, negative)}
    topic = positive.strip()
    if topic in TOPICS and not negative.strip():
        found |= topic_directions(model, topic, layers, training=training)
    return found


def topic_directions(
    model: HookedModel, topic: str, layers: Sequence[int] | Literal["all"], *, training: bool = True
) -> dict[str, Any]:
    """The vectors of the shipped sentences about a topic: their mean difference, and trained ones if asked for."""
    import steerlens as sl
    from steerlens.demo import topic_contrast
    from steerlens.runs.methods import trained_vectors
    from steerlens.steering.extraction.lessons import NothingLearned

    about, neutral = topic_contrast(topic)
    # Averaged over all tokens: that of the last token is mostly about the full stop.
    means = sl.mean_difference(model, about, neutral, layers=layers, token=slice(1, None))
    found: dict[str, Any] = {f"sentences about {topic}": means}
    if training:
        contrast = sl.ContrastSet.of(zip(about, neutral, strict=True), name=topic)
        with suppress(NothingLearned):  # the others are searched
            found[f"trained on sentences about {topic}"] = trained_vectors(model, contrast, layers=layers)
    return found
