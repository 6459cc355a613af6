"""`steerlens sweep`: every layer and coefficient, with intervals and controls: files first, then a table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerlens.cli.options import (
    MODEL,
    PAIR_HELP,
    PROMPT,
    SAMPLING,
    Chat,
    ModelOptions,
    PlacementOption,
    SamplingChoice,
    read_controls,
    read_layers,
    read_metric,
    read_placement,
    read_prompt,
    typed,
)
from steerlens.errors import SteerlensError

if TYPE_CHECKING:
    import pandas as pd

    from steerlens.runs.confirming import Confirmation
    from steerlens.runs.swept import Sweep

Out = Annotated[Path | None, typer.Option("--out", "-o", help="HTML report, self-contained.")]
Csv = Annotated[Path | None, typer.Option(help="All completions as CSV.")]


def sweep(
    positive: Annotated[str, typer.Argument(help=f"Steer towards this. {PAIR_HELP}")] = " weddings",
    negative: Annotated[str, typer.Argument(help="Steer away from this.")] = " ",
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="The text to continue; may be repeated.", show_default=PROMPT),
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
    coeff: Annotated[
        list[float] | None,
        typer.Option("--coeff", "-c", help="Coefficient of the vector; may be repeated.", show_default="1"),
    ] = None,
    placement: PlacementOption = "front",
    control: Annotated[bool, typer.Option(help="Run controls beside the vector.")] = True,
    controls: Annotated[
        str,
        typer.Option(help="'standard', or some of random,shuffled,negated,prompting; what cannot be made is left out."),
    ] = "random,prompting",
    prompting: Annotated[
        str | None, typer.Option(help="The words to prompt with instead.", show_default="the positive prompt")
    ] = None,
    sampling: SamplingChoice = SAMPLING,
    model: ModelOptions = MODEL,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Rows decoded together.")] = None,
    out: Out = None,
    csv: Csv = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Keep finished conditions in this file; the same command resumes an interrupted run."),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(help="Measure the best condition again: so many fresh samples per prompt, all controls."),
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option("--held-out", help="A prompt to do that on; may be repeated.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: a Ray cluster (RAY_ADDRESS, or this machine).")] = "local",
) -> None:
    """Which layer does a vector work at? A sweep over layers and coefficients, with 95 % intervals and controls.

    [bold]Examples[/bold]

      steerlens sweep " weddings" " " --out weddings.html

      steerlens sweep " war" " " --words war --coeff 2 --coeff 4 --layers 2-5

      steerlens sweep "Love" "Hate" --words love,loved,loves --prompt "I hate you because" --model gpt2-xl --device cuda

      steerlens sweep " weddings" " " --n 1000 --store runs.sqlite

      steerlens sweep " war" " " --words war --coeff 2 --confirm 50 --held-out "Last night I" --held-out "The man said"
    """
    import steerlens as sl
    from steerlens.cli.outputs import check_places
    from steerlens.runs.store import Store

    check_places(out=out, csv=csv, store=store)
    if store is not None:
        with Store(store):  # whether it can be used, before the model is loaded
            pass
    metric = read_metric(words if words is not None else positive.strip())
    chosen, drawn = read_layers(layers), sampling.read()
    loaded = model.load()
    started = time.perf_counter()
    result = sl.sweep(
        loaded,
        sl.PromptPair(positive, negative),
        [read_prompt(text, chat=chat) for text in prompt or [PROMPT]],
        layers=chosen(loaded.cfg.n_layers),
        coeffs=coeff or [1.0],
        placement=read_placement(placement),
        metrics=[metric],
        sampling=drawn,
        controls=read_controls(controls, prompting) if control else None,
        batch_size=batch_size,
        store=store,
        engine=engine,  # type: ignore[arg-type]  # checked there
    )
    seconds = time.perf_counter() - started
    again = None
    if confirm is not None or held_out:
        others = [read_prompt(text, chat=chat) for text in held_out] if held_out else None
        beside = read_controls("standard", prompting)
        again = result.confirm(loaded, others, n=confirm, controls=beside, batch_size=batch_size)
    deliver(result, seconds, out=out, csv=csv, store=store, confirmed=again)


def deliver(
    result: Sweep,
    seconds: float,
    *,
    out: Path | None,
    csv: Path | None,
    store: Path | None = None,
    confirmed: Confirmation | None = None,
) -> None:
    """Write the files of a sweep, then print it.

    Raises:
        SteerlensError: a file could not be written; the others are, and the table is printed.
    """
    from steerlens.cli.console import say
    from steerlens.cli.outputs import write_all
    from steerlens.whole_files import write_whole

    writers = {}
    if csv is not None:
        writers["completions"] = lambda: write_whole(csv, result.frame.to_csv(index=False), "the completions")
    if out is not None:
        writers["report"] = lambda: result.report(out, command=typed(), confirmed=confirmed)
    lines, problems = write_all(writers)
    say(told(result))
    if confirmed is not None:
        say(told_again(confirmed) + "\n")
    # With a store some of them may be from an earlier run: no rate.
    rate = f" ({result.frame['n_tokens'].sum() / seconds:,.0f} tokens/s)" if store is None else f", kept in {store}"
    say("\n".join([f"{len(result.frame):,} completions in {seconds:.0f} s{rate}", *lines]))
    if problems:
        raise SteerlensError("; ".join(problems))


def told(result: Sweep) -> str:
    """A sweep as text for a terminal: every condition, the best one, and its completions beside unsteered ones."""
    from steerlens.cli.console import coloured, table, width
    from steerlens.measures.findings import NOTHING, differing
    from steerlens.measures.summaries import CONTROLS, best_found, control_of, interval, number, subject
    from steerlens.runs.sweep_page import best_beside_unsteered, no_effect

    metric = result.metrics[0]
    rows = result.summary[result.summary["metric"] == metric.name]
    controlled = bool((rows["role"] == "random").any())
    found = differing(result.frame, metric.column, metric.kind, better=metric.better)
    best, base = best_found(rows, found), result.baseline()
    columns = ["layer", "coeff", "steered", "95 % interval"]
    cells = [["unsteered", "", number(base), interval(base)]]
    if controlled:
        columns += ["random vector", "95 % interval"]
        cells[0] += ["", ""]
    judged = result.judged()
    if judged is not None:
        columns += ["surprise", "verdict"]
        cells[0] += [f"{judged['surprise'].iloc[0]:.2f}", ""]
    for _, row in rows[rows["role"] == "prompting"].iterrows():
        line = ["prompting", "", number(row), interval(row), *["", ""] * controlled]
        cells.append(line if judged is None else [*line, f"{judged.loc[row['condition'], 'surprise']:.2f}", ""])
    head = len(cells) - 1
    bold = None
    for _, row in rows[rows["role"] == "steered"].iterrows():
        if row["condition"] == best["condition"]:
            bold = len(cells)
        line = [str(row["layer"]), f"{row['coeff']:g}", number(row), interval(row)]
        if controlled:
            other = control_of(rows, row)
            line += ["", ""] if other is None else [number(other), interval(other)]
        if judged is not None:
            one = judged.loc[row["condition"]]
            line += [f"{one['surprise']:.2f}", one["verdict"].removesuffix(" to say")]
        cells.append(line)
    title = f"{subject(result.settings)}: {metric.name}, {result.settings['n']} completions each"
    headline = (
        f"best: layer {best['layer']}, coefficient {best['coeff']:g}: {number(best)} ({interval(best)}) "
        f"against {number(base)} ({interval(base)}) unsteered"
    )
    if judged is not None:
        headline += f"; {judged.loc[best['condition'], 'verdict']}"
    others = [
        f"{name} {number(control)} ({interval(control)})"
        for role, name in CONTROLS.items()
        if role not in ("random", "prompting") and (control := control_of(rows, best, role)) is not None
    ]
    if others:
        headline += f"\nbeside it: {', '.join(others)}"
    if not found:
        end = "highest" if metric.better == "higher" else "lowest"
        headline = f"{NOTHING}: {no_effect(rows)}\n{end}: {headline.removeprefix('best: ')}"
        bold = None
    headline = "\n".join([headline, *result.settings.get("controls left out", ())])
    beside = best_beside_unsteered(result.frame, result.summary, metric, n=3).text(width(), colour=coloured())
    return "\n".join(["", table(title, columns, cells, ruled=[head], bold=bold), headline, "", beside, ""])


def told_again(confirmed: Confirmation) -> str:
    """A confirmation as text for a terminal."""
    from steerlens.cli.console import table
    from steerlens.measures.summaries import CONTROLS

    share = confirmed.metric.kind == "share"

    def written(row: pd.Series, name: str) -> list[str]:
        values = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
        first, low, high = (f"{one:.1%}" if share else f"{one:.3g}" for one in values)
        return ["", ""] if values[0] != values[0] else [first, f"{low} to {high}"]

    cells = []
    for _, row in confirmed.table.iterrows():
        name, surprise = CONTROLS.get(row["role"], row["role"]), f"{row['surprise']:.2f}"
        cells.append([name, *written(row, "success"), surprise, *written(row, "difference")])
    columns = ["", "success", "95 % interval", "surprise", "steered leads by", "95 % interval"]
    return "\n".join([table(f"confirmed on {confirmed.settings['confirmed on']}", columns, cells), str(confirmed)])
