"""The command line: a thin front end with one file per command; the work is in the package."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from steerlens import __version__
from steerlens.cli import console, outputs
from steerlens.cli.compare import compare
from steerlens.cli.demo import demo
from steerlens.cli.explore import explore
from steerlens.cli.get import get
from steerlens.cli.options import spread
from steerlens.cli.reliability import reliability
from steerlens.cli.reproduce import reproduce
from steerlens.cli.search import search
from steerlens.cli.steer import steer
from steerlens.cli.sweep import sweep
from steerlens.cli.waiting import choose_waiting
from steerlens.errors import SteerlensError, in_one_line
from steerlens.progress import at_work

__all__ = ["app", "main"]

app = typer.Typer(
    help="Activation steering in transformer language models, measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _heard(command: Callable[..., None]) -> Callable[..., None]:
    """The command, of which a pipe or a file hears at intervals as long as it works."""

    @functools.wraps(command)
    def heard(**given: Any) -> None:
        with at_work(command.__name__):
            command(**given)

    return heard


for command in (steer, sweep, search, compare, reliability, demo, explore, reproduce, get):
    # The explorer waits for a browser and says when it is ready.
    app.command()(spread(command if command is explore else _heard(command)))

# typer has its own copy of click in newer versions.
_Misused: Any = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")


def _version(asked: bool) -> None:
    if asked:
        console.say(f"steerlens {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Activation steering in language models, measured: which layer, how strong, did it work, what broke."""


def main() -> None:
    """Run the command line; bad input prints one line and exits with 2, an interruption with 130."""
    console.prepare()
    outputs.written.clear()
    code = _code()
    console.finish()
    sys.exit(code)


def _code() -> int:
    """The exit code of the command that was typed, after all that it has to say."""
    try:
        choose_waiting()  # before any command imports torch
        # typer turns an interruption of a command into exit code 130, without a word.
        code = int(app(standalone_mode=False, prog_name="steerlens") or 0)
        return _interrupted() if code == 130 else code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except _Misused as error:
        return _misused(error)
    except (SteerlensError, ValueError, OSError) as error:
        if os.environ.get("STEERLENS_TRACEBACK"):
            raise
        console.note(f"steerlens: {in_one_line(' '.join(str(error).split()))}")
        return 2
    except Exception as error:
        if os.environ.get("STEERLENS_TRACEBACK"):
            raise
        what = in_one_line(" ".join(f"{type(error).__name__}: {error}".split()))
        console.note(f"steerlens: {what} (unexpected; set STEERLENS_TRACEBACK=1 to see where)")
        return 1


def _misused(error: Any) -> int:
    """One line for a command line that cannot be read; the help for an empty one."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "steerlens"
    # typer names options and arguments as they are typed; the rest is a sentence with a capital.
    what = " ".join(error.format_message().split()).rstrip(".")
    console.note(f"steerlens: {in_one_line(what[:1].lower() + what[1:])}; {command} --help lists what it takes")
    return int(error.exit_code)


def _interrupted() -> int:
    stored = any(word.startswith("--store") or word == "reproduce" for word in sys.argv)
    kept = "what is finished is kept; the same command resumes" if stored else "nothing was written"
    if outputs.written:
        kept = f"written: {', '.join(map(str, outputs.written))}"
    console.note(f"steerlens: interrupted; {kept}")
    return 130
