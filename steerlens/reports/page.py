"""`Page`: the content of a page as plain data: its author does not draw it, and its renderer knows no result type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steerlens.reports.all_completions import AllCompletions

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from steerlens.figures import SideBySide


@dataclass(frozen=True)
class Headline:
    """A number at the top of the page: what it is (`label`), the number as text (`value`), a smaller `note`."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Completions:
    """Completions side by side as a page shows them.

    Attributes:
        shown: what is always visible.
        heading: over it, where a page has several.
        lines: what to know first, a paragraph each.
        folded: more of them, behind a line to click on (`folded_title`).
    """

    shown: SideBySide
    heading: str = ""
    lines: tuple[str, ...] = ()
    folded: SideBySide | None = None
    folded_title: str = "All completions"


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """What one page says. All text is plain text, whoever wrote it; parts without content are left out.

    Attributes:
        title, subtitle: at the top.
        answer: what the numbers say to the title, in words, a paragraph each; the first says it in short.
        headlines: the few numbers to read first.
        links: title to file name, of pages that lie beside this one.
        said_there: title to what that page says in short, for some of the links.
        figures: caption to figure, in order (an empty caption is none).
        tables: caption to frame; floats are shortened, missing values dashed.
        completions: texts side by side.
        every: all texts, of which the reader chooses. Figures whose `customdata` are numbers of conditions, and tables
            whose index is named "condition", lead to them.
        notes: heading to remarks, a line each.
        settings: model, versions, seed, hash …: whatever it takes to repeat it.
        command: what to type to reproduce it, shell or Python.
    """

    title: str
    subtitle: str = ""
    answer: Sequence[str] = ()
    headlines: Sequence[Headline] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    said_there: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    completions: Sequence[Completions] = ()
    every: AllCompletions | None = None
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
