"""`AllCompletions`: every completion of a run, to be read in its page, one condition at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from steerlens.figures.columns import name_conditions, roles
from steerlens.measures.metrics import Metric
from steerlens.measures.summaries import CONTROLS
from steerlens.reports.embedding import columns

_GROUPS = {"unsteered": "Unsteered", "steered": "Steered"} | {
    role: name.capitalize() for role, name in CONTROLS.items()
}


@dataclass(frozen=True, eq=False, kw_only=True)
class AllCompletions:
    """Every completion, for a reader who chooses a condition in a list, or by its point or cell in a figure.

    Attributes:
        frame: one row per completion: condition (its number, which figures have as `customdata`), label, prompt,
            sample, completion, optional role and part (of the run); the whole of it goes into the CSV file.
        metric: whose words are marked, and by whose value the rows can be chosen.
        numbers: the columns that stand beside a completion.
        first: the condition that is shown until another is chosen.
        names: of conditions by number, where their labels do not say enough.
    """

    frame: pd.DataFrame
    metric: Metric | None = None
    numbers: Sequence[str] = ()
    first: int | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """What the page's script reads: the frame's columns, its conditions by number, and the places of the words.

        Places are pairs of start and end in UTF-16 units, a browser's measure of text.
        """
        labelled = self.frame.assign(label=self.frame["label"].map(str))
        # Parts of a run may each have a condition of one name: the list says which part.
        parts = [labelled] if "part" not in labelled else [one for _, one in labelled.groupby("part", sort=False)]
        named = pd.concat([name_conditions(one) for one in parts])
        named = named.assign(role=roles(named)).drop_duplicates("condition")
        named["group"] = named["role"].map(lambda role: _GROUPS.get(role, str(role)))
        if "part" in named:
            named["group"] = named["part"] + ": " + named["group"].str.lower()
        marked = self.metric.marked if self.metric is not None else ()
        texts = self.frame["completion"].map(str)
        return {
            "columns": columns(self.frame),
            "conditions": [
                {
                    "number": int(row.condition),
                    "name": self.names.get(int(row.condition), row.label),
                    "group": row.group,
                }
                for row in named.itertuples()
            ],
            "marks": [_marks(text, self.metric) for text in texts] if marked else None,
            "metric": None
            if self.metric is None
            else {"column": self.metric.column, "name": self.metric.name, "share": self.metric.kind == "share"},
            "numbers": [name for name in self.numbers if name in self.frame.columns],
            "first": self.first,
        }


def _marks(text: str, metric: Metric | None) -> list[int]:
    places = [] if metric is None else metric.spans(text)
    if not places or text.isascii():
        return [end for place in places for end in place]
    return list(_in_units(text, [end for place in places for end in place]))


def _in_units(text: str, ends: Iterable[int]) -> Iterable[int]:
    """Places in a Python text as places in UTF-16: characters beyond the basic plane count twice."""
    at = units = 0
    for end in ends:
        units += sum(2 if ord(letter) > 0xFFFF else 1 for letter in text[at:end])
        at = end
        yield units
