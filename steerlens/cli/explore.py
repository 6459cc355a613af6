"""`steerlens explore`: the explorer in a browser, without Jupyter."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from steerlens.cli.options import MODEL, PAIR_HELP, PROMPT, Chat, ModelOptions, PlacementOption, Prompt, read_placement


def explore(
    positive: Annotated[str, typer.Argument(help=f"Steer towards this. {PAIR_HELP}")] = " weddings",
    negative: Annotated[str, typer.Argument(help="Steer away from this.")] = " ",
    prompt: Prompt = PROMPT,
    chat: Chat = False,
    words: Annotated[
        str, typer.Option(help="Next words to follow, separated by commas; each one token.")
    ] = "wedding, married",
    layer: Annotated[
        int | None, typer.Option("--layer", "-l", help="Block whose input is steered.", show_default="half way")
    ] = None,
    coeff: Annotated[float, typer.Option("--coeff", "-c", help="Coefficient: the vector is multiplied by it.")] = 4.0,
    placement: PlacementOption = "front",
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    model: ModelOptions = MODEL,
) -> None:
    """The explorer in a browser, without Jupyter: sliders, figures, completions. Ctrl-C ends it.

    It listens on this machine only, and opens only with the full address, token included. Everything can be changed on
    the page, whose address keeps the settings. From another machine: ssh -L 8765:127.0.0.1:8765, with --port 8765.

    [bold]Examples[/bold]

      steerlens explore

      steerlens explore "Love" "Hate" -p "I hate you because" --words "love, hate" --model smollm2
    """
    from steerlens.cli.console import note, say
    from steerlens.explorer.models import Models
    from steerlens.explorer.server import Server
    from steerlens.explorer.widget import first_view

    loaded = model.load()
    where = read_placement(placement)
    ends = (min(-20.0, coeff), max(20.0, coeff))
    view, ends = first_view(loaded, (positive, negative), prompt, layer, coeff, where, words, ends, chat)
    server = Server(Models(loaded), view, ends, port=port)

    def ready() -> None:
        say(f"open {server.address}\nCtrl-C ends it")
        if browser:
            webbrowser.open(server.address)

    server.run(ready)
    note("steerlens explore has ended")
