"""`steerlens reliability`: on which prompts of a contrast set steering works, and on which it goes the wrong way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli.options import MODEL, ModelOptions, typed
from steerlens.errors import SteerlensError


def reliability(
    contrast: Annotated[Path, typer.Argument(help="A paired contrast set: CSV, JSON, JSONL or parquet.")],
    layer: Annotated[
        int | None, typer.Option("--layer", "-l", help="Block whose input is steered.", show_default="half way")
    ] = None,
    share: Annotated[
        float, typer.Option("--held-out", help="Share of the pairs that take no part in the vector.")
    ] = 0.5,
    coeff: Annotated[
        list[float] | None,
        typer.Option("--coeff", "-c", help="How strong; may be repeated.", show_default="-1.5 to 1.5"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    model: ModelOptions = MODEL,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML report, self-contained.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Every value as CSV.")] = None,
) -> None:
    """Does a vector steer every prompt? Slopes and the share steered the wrong way, prompt by prompt.

    The vector is the mean difference of one part of the pairs (at their last token); the value is the logit of the
    token in which the texts of a pair first differ, the positive one's minus the negative one's (for A/B sets: the
    answer's letter). The other part is held out.

    [bold]Examples[/bold]

      steerlens reliability corrigible.json --model smollm2 --layer 14 --out corrigible.html
    """
    import steerlens as sl
    from steerlens.analysis.reliability import COEFFS
    from steerlens.cli.console import say
    from steerlens.cli.outputs import check_places, write_all
    from steerlens.whole_files import write_whole

    check_places(out=out, csv=csv)
    pairs = sl.ContrastSet.read(contrast)
    if not pairs.paired:
        raise SteerlensError(f"{contrast} has labelled texts, not pairs; give a paired contrast set")
    made_of, held_out = pairs.split(share, seed=seed)
    loaded = model.load()
    vector = sl.mean_difference(loaded, made_of, layer=loaded.cfg.n_layers // 2 if layer is None else layer)
    found = sl.reliability(loaded, vector, made_of, held_out=held_out, coeffs=coeff or COEFFS)
    writers = {}
    if csv is not None:
        writers["values"] = lambda: write_whole(csv, found.frame.to_csv(index=False), "the values")
    if out is not None:
        writers["report"] = lambda: found.report(out, command=typed())
    lines, problems = write_all(writers)
    say("\n".join([repr(found), *lines]))
    if problems:
        raise SteerlensError("; ".join(problems))
