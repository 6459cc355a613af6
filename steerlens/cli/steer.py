"""`steerlens steer`: completions, unsteered and steered, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from steerlens.cli.options import (
    MODEL,
    PAIR_HELP,
    PROMPT,
    Chat,
    ModelOptions,
    PlacementOption,
    Prompt,
    SamplingChoice,
    System,
    read_placement,
    read_prompt,
)

_FEW = SamplingChoice(n=3)


def steer(
    positive: Annotated[str, typer.Argument(help=f"Steer towards this. {PAIR_HELP}")],
    negative: Annotated[str, typer.Argument(help="Steer away from this.")] = " ",
    prompt: Prompt = PROMPT,
    chat: Chat = False,
    system: System = None,
    layer: Annotated[
        int | None, typer.Option("--layer", "-l", help="Block whose input is steered.", show_default="half way")
    ] = None,
    coeff: Annotated[float, typer.Option("--coeff", "-c", help="Coefficient: the vector is multiplied by it.")] = 4.0,
    placement: PlacementOption = "front",
    sampling: SamplingChoice = _FEW,
    model: ModelOptions = MODEL,
) -> None:
    """Completions of a prompt, unsteered and steered, side by side.

    [bold]Examples[/bold]

      steerlens steer " weddings" " " --prompt "I went up to my friend and said"

      steerlens steer "Love" "Hate" -p "I hate you because" --layer 6 --coeff 5 --model gpt2-xl

      steerlens steer " weddings" " " -p "Tell me a story." --chat --system "Be brief." --model smollm2
    """
    import steerlens as sl
    from steerlens.cli.console import coloured, say, width
    from steerlens.figures import completions_side_by_side

    drawn, asked = sampling.read(), read_prompt(prompt, chat=chat, system=system)
    loaded = model.load()
    chosen = loaded.cfg.n_layers // 2 if layer is None else layer
    vector = sl.actadd(loaded, positive, negative, layer=chosen)
    frame = sl.generate(
        loaded,
        [asked],
        [None, coeff * vector],
        sampling=drawn,
        placement=read_placement(placement),
    )
    say(completions_side_by_side(frame, n=drawn.n).text(width(), colour=coloured()))
