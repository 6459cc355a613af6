"""The command line: `steerlens demo`, `steer`, `sweep`, `reproduce`. A thin face; the work is in the package."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from steerlens import __version__
from steerlens.errors import SteerlensError

app = typer.Typer(
    help="Activation steering in transformer language models, measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[
    str, typer.Option("--model", "-m", help="'demo' (embedded), a Hugging Face name such as gpt2-xl, or a directory.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="The text to continue.")]
Tokens = Annotated[int, typer.Option(help="New tokens per completion, at most.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopP = Annotated[float, typer.Option("--top-p", help="Nucleus; 1 keeps all.")]
Penalty = Annotated[float, typer.Option(help="Subtracted from a token's logit per time it was said.")]
Seed = Annotated[int, typer.Option(help="Same seed, same completions.")]
PlacementOption = Annotated[
    str, typer.Option(help="front, mid, back, last, all, prompt, generated, from_last, or an index.")
]
Batch = Annotated[int | None, typer.Option("--batch-size", help="Rows decoded together.")]

_PAIR_HELP = "Mind the spaces: tokens of most models begin with one."


@app.command()
def steer(
    positive: Annotated[str, typer.Argument(help=f"Steer towards this. {_PAIR_HELP}")],
    negative: Annotated[str, typer.Argument(help="Steer away from this.")] = " ",
    prompt: Prompt = "I went up to my friend and said",
    layer: Annotated[
        int | None, typer.Option("--layer", "-l", help="Block whose input is steered.", show_default="half way")
    ] = None,
    coeff: Annotated[float, typer.Option("--coeff", "-c", help="How strong.")] = 4.0,
    n: Annotated[int, typer.Option("--n", "-n", help="Completions.")] = 3,
    tokens: Tokens = 40,
    placement: PlacementOption = "front",
    temperature: Temperature = 1.0,
    top_p: TopP = 0.3,
    frequency_penalty: Penalty = 1.0,
    seed: Seed = 0,
    model: Model = "demo",
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Completions of a prompt, unsteered and steered, side by side.

    [bold]Examples[/bold]

      steerlens steer " weddings" " " --prompt "I went up to my friend and said"

      steerlens steer "Love" "Hate" -p "I hate you because" --layer 6 --coeff 5 --model gpt2-xl
    """
    import steerlens as sl
    from steerlens.figures import completions_side_by_side

    loaded = _load(model, device, dtype)
    chosen = loaded.cfg.n_layers // 2 if layer is None else layer
    vector = sl.actadd(loaded, positive, negative, layer=chosen)
    frame = sl.generate(
        loaded,
        prompt,
        [None, coeff * vector],
        n=n,
        max_new_tokens=tokens,
        temperature=temperature,
        top_p=top_p,
        frequency_penalty=frequency_penalty,
        seed=seed,
        placement=_placement(placement),
    )
    typer.echo(completions_side_by_side(frame, n=n).text(_width(), colour=sys.stdout.isatty()))


@app.command()
def sweep(
    positive: Annotated[str, typer.Argument(help=f"Steer towards this. {_PAIR_HELP}")] = " weddings",
    negative: Annotated[str, typer.Argument(help="Steer away from this.")] = " ",
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="The text to continue; may be repeated.")
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            help="Success: a topic (weddings, war, music, …) or words with commas.", show_default="the positive prompt"
        ),
    ] = None,
    layers: Annotated[str, typer.Option("--layers", "-l", help="'all', or numbers and ranges: 0,4-6.")] = "all",
    coeff: Annotated[
        list[float] | None, typer.Option("--coeff", "-c", help="How strong; may be repeated.", show_default="1")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Completions per condition and prompt.")] = 200,
    tokens: Tokens = 40,
    placement: PlacementOption = "front",
    control: Annotated[bool, typer.Option(help="Random vectors of equal norm beside the steered ones.")] = True,
    temperature: Temperature = 1.0,
    top_p: TopP = 0.3,
    frequency_penalty: Penalty = 1.0,
    seed: Seed = 0,
    model: Model = "demo",
    device: Device = "auto",
    dtype: Dtype = "float32",
    batch_size: Batch = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML report, self-contained.")] = None,
    csv: Annotated[Path | None, typer.Option(help="All completions as CSV.")] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Keep finished conditions in this file; the same command goes on where it stopped."),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: a Ray cluster (RAY_ADDRESS, or this machine).")] = "local",
) -> None:
    """Which layer does a vector work at? A sweep over layers and coefficients, with 95 % intervals and controls.

    [bold]Examples[/bold]

      steerlens sweep " weddings" " " --out weddings.html

      steerlens sweep " war" " " --words war --coeff 2 --coeff 4 --layers 2-5

      steerlens sweep "Love" "Hate" --words love,loved,loves --prompt "I hate you because" --model gpt2-xl --device cuda

      steerlens sweep " weddings" " " --n 1000 --store runs.sqlite
    """
    import steerlens as sl
    from steerlens.reports.writing import check_page_path
    from steerlens.runs.store import Store

    for path in (out, csv):
        if path is not None:
            check_page_path(path)
    if store is not None:
        with Store(store):  # whether it can be used, before the model is loaded
            pass
    metric = _metric(words if words is not None else positive.strip())
    loaded = _load(model, device, dtype)
    started = time.perf_counter()
    result = sl.sweep(
        loaded,
        sl.PromptPair(positive, negative),
        prompt or ["I went up to my friend and said"],
        layers=_layers(layers),
        coeffs=coeff or [1.0],
        placement=_placement(placement),
        metrics=[metric],
        n=n,
        max_new_tokens=tokens,
        temperature=temperature,
        top_p=top_p,
        frequency_penalty=frequency_penalty,
        seed=seed,
        control="random" if control else None,
        batch_size=batch_size,
        store=store,
        engine=engine,  # type: ignore[arg-type]  # checked there
    )
    seconds = time.perf_counter() - started
    _print_sweep(result)
    # With a store some of them may be from an earlier run: no rate.
    rate = f" ({result.frame['n_tokens'].sum() / seconds:,.0f} tokens/s)" if store is None else f", kept in {store}"
    typer.echo(f"{len(result.frame):,} completions in {seconds:.0f} s{rate}")
    if csv is not None:
        result.frame.to_csv(csv, index=False)
        typer.echo(f"completions: {csv}")
    if out is not None:
        typer.echo(f"report: {result.report(out, command=_command())}")


@app.command()
def demo(
    positive: Annotated[str, typer.Option(help=f"Steer towards this. {_PAIR_HELP}")] = " weddings",
    negative: Annotated[str, typer.Option(help="Steer away from this.")] = " ",
    prompt: Prompt = "I went up to my friend and said",
    words: Annotated[str, typer.Option(help="A topic or words with commas.")] = "weddings",
    coeff: Annotated[
        list[float] | None, typer.Option("--coeff", "-c", help="How strong; may be repeated.", show_default="1 and 4")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Completions per condition.")] = 200,
    tokens: Tokens = 40,
    seed: Seed = 0,
    model: Model = "demo",
    device: Device = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML report, self-contained.")] = Path("weddings.html"),
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
        n=n,
        tokens=tokens,
        seed=seed,
        model=model,
        device=device,
        out=out,
    )


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME…|all]",
            help="perplexity, topic, knowledge, overhead, sentiment, toxicity, gallery.",
            show_default="all",
        ),
    ] = None,
    model: Model = "demo",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pages, tables and finished parts.")] = Path(
        "results"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Settings for the embedded model and minutes.")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: an experiment's data (parquet, JSONL, CSV, or a hub name); may be repeated."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """The ActAdd paper's experiments on any model, with intervals and controls, as one page of results.

    Run again after an interruption, it goes on where it stopped.

    [bold]Examples[/bold]

      steerlens reproduce all --quick

      steerlens reproduce topic perplexity --model gpt2-xl --device cuda

      steerlens reproduce knowledge --data knowledge=conceptnet.parquet --model gpt2-xl
    """
    import steerlens as sl

    places = {}
    for text in data or []:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise SteerlensError(f"--data {text!r} cannot be read; give NAME=PATH, as in knowledge=conceptnet.parquet")
        places[name] = path
    suite = sl.experiments.reproduce(
        _load(model, device, dtype),
        names or "all",
        folder=out,
        quick=quick,
        data=places,
        seed=seed,
        command=_command(),
        tell=lambda line: typer.echo(line, err=True),
    )
    typer.echo(f"{len(suite.results)} done in {sum(suite.seconds.values()) / 60:.1f} minutes: {suite.page}")
    if suite.failures:
        raise SteerlensError(f"not done: {'; '.join(f'{name} ({why})' for name, why in suite.failures.items())}")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"steerlens {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Activation steering in language models, measured: which layer, how strong, did it work, what broke."""


def main() -> None:
    """Run the command line; bad input prints one line and exits with 2, an interruption with 130."""
    try:
        app(standalone_mode=True)
    except (KeyboardInterrupt, SystemExit) as stop:
        # typer turns an interruption of a command into exit code 130, without a word.
        if isinstance(stop, SystemExit) and stop.code != 130:
            raise
        stored = any(word.startswith("--store") or word == "reproduce" for word in sys.argv)
        kept = "what is finished is kept; the same command goes on" if stored else "nothing was written"
        typer.echo(f"steerlens: interrupted; {kept}", err=True)
        sys.exit(130)
    except (SteerlensError, ValueError, OSError) as error:
        if not isinstance(error, SteerlensError) and "--traceback" in sys.argv:
            raise
        typer.echo(f"steerlens: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


def _load(model: str, device: str, dtype: str) -> Any:
    import steerlens as sl

    typer.echo(f"loading {model} …", err=True)
    return sl.load_model(model, device=device, dtype=dtype)


def _metric(words: str) -> Any:
    from steerlens.measures import metrics

    given = [word.strip() for word in words.split(",") if word.strip()]
    if not given:
        raise SteerlensError(f"--words {words!r} names no word; give a topic or words with commas")
    return metrics.words(*given)


def _layers(text: str) -> list[int] | Literal["all"]:
    if text == "all":
        return "all"
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise SteerlensError(f"--layers {text!r} cannot be read; give 'all', or numbers and ranges such as 0,4-6")
        layers.extend(range(int(first), int(last or first) + 1))
    if not layers:
        raise SteerlensError(f"--layers {text!r} names no layer; give 'all', or numbers and ranges such as 0,4-6")
    return layers


def _placement(text: str) -> Any:
    return int(text) if text.lstrip("-").isdigit() else text


def _command() -> str:
    return shlex.join(["steerlens", *sys.argv[1:]])


def _width() -> int:
    import shutil

    return max(min(shutil.get_terminal_size((110, 40)).columns, 140), 60)


def _print_sweep(result: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from steerlens.measures.summaries import interval, number
    from steerlens.runs.sweep_page import best_beside_unsteered

    metric = result.metrics[0]
    rows = result.summary[result.summary["metric"] == metric.name]
    console = Console(width=_width())
    console.print()
    controlled = (rows["role"] == "random").any()
    table = Table(
        title=f"{result.settings['what']}: {metric.name}, {result.settings['n']} completions each", title_justify="left"
    )
    for heading in (
        "layer",
        "coeff",
        "steered",
        "95 % interval",
        *(("random vector", "95 % interval") if controlled else ()),
    ):
        table.add_column(heading, justify="right")
    best, base = result.best(), result.baseline()
    table.add_row("unsteered", "", number(base), interval(base), end_section=True)
    for _, row in rows[rows["role"] == "steered"].iterrows():
        cells = [str(row["layer"]), f"{row['coeff']:g}", number(row), interval(row)]
        if controlled:
            same = (rows["role"] == "random") & (rows["layer"] == row["layer"]) & (rows["coeff"] == row["coeff"])
            other = rows[same].iloc[0]
            cells += [number(other), interval(other)]
        table.add_row(*cells, style="bold" if row["condition"] == best["condition"] else "")
    console.print(table)
    console.print(
        f"best: layer {best['layer']}, coefficient {best['coeff']:g}: {number(best)} ({interval(best)}) "
        f"against {number(base)} ({interval(base)}) unsteered",
        highlight=False,
    )
    console.print()
    print(best_beside_unsteered(result.frame, result.summary, metric, n=3).text(_width(), colour=sys.stdout.isatty()))
    print()


if __name__ == "__main__":
    main()
