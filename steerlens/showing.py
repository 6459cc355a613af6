"""`Shown`: what a result says of itself at the end of a cell: a line of text, or headline numbers and its figure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from steerlens.errors import SteerlensError, in_one_line

# Every class twice, so that the rules win over those that Jupyter has for any table.
_STYLE = (
    ".sl-told.sl-told{border-collapse:collapse;margin:.2em 0;background:none;color:inherit;text-align:left}"
    ".sl-told.sl-told caption{caption-side:top;text-align:left;font-weight:600;padding:0 0 .3em;color:inherit}"
    ".sl-told.sl-told tr,.sl-told.sl-told tr:nth-child(even),.sl-told.sl-told tr:hover{background:none}"
    ".sl-told.sl-told th{font-weight:400;text-align:left;padding:.1em 1.4em .1em 0;border:0}"
    ".sl-told.sl-told td{text-align:left;padding:.1em 0;border:0;font-variant-numeric:tabular-nums;max-width:70em;"
    "white-space:normal;overflow-wrap:anywhere}"
)
_LONGEST = 400  # characters of a line of text: a prompt may be a book


class Shown:
    """A result that tells what was run and its headline numbers; `_told` says them, the rest is here."""

    def _told(self) -> tuple[str, Mapping[str, object]]:
        """What was run, and the headline numbers by what they are: plain text, escaped here."""
        raise NotImplementedError

    def _drawn(self) -> Any:
        """The figure that goes with the numbers; None where there is none."""
        plot = getattr(self, "plot", None)
        return plot() if plot is not None else None

    def __repr__(self) -> str:
        title, facts = self._told()
        said = "; ".join(f"{name} {value}" for name, value in facts.items())
        line = f"{type(self).__name__}({title}: {said})" if said else f"{type(self).__name__}({title})"
        return in_one_line(line, most=_LONGEST)

    def _repr_html_(self) -> str:
        title, facts = self._told()
        rows = "".join(
            f'<tr><th scope="row">{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>'
            for name, value in facts.items()
        )
        what = html.escape(f"{type(self).__name__}: {title}")
        return f'<style>{_STYLE}</style><table class="sl-told"><caption>{what}</caption><tbody>{rows}</tbody></table>'

    def _ipython_display_(self) -> None:
        """In a notebook the numbers and, below, the figure; elsewhere the line of text."""
        from IPython import get_ipython
        from IPython.display import display

        shell = get_ipython()
        if not hasattr(shell, "kernel"):
            print(repr(self))
            return
        display({"text/plain": repr(self), "text/html": self._repr_html_()}, raw=True)
        try:
            figure = self._drawn()
        except SteerlensError:  # nothing to draw: the numbers stand for themselves
            return
        if figure is not None:
            display(figure)
