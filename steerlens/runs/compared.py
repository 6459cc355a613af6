"""`Comparison`: what methods do on held-out prompts, each at its best and all at equal damage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.arguments import text
from steerlens.measures.comparing import compared_methods, method_differences
from steerlens.measures.metrics import Metric
from steerlens.runs.search_result import Search

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Methods compared.

    Attributes:
        completions: one row per completion: role, method, setting ("best", "equal damage"), the goal, surprise.
        goal, margin: what counts as success.
        searches: by method, how its best setting was found.
        notes: what could not be compared, and why.
        settings: everything needed to repeat it, as plain data.
    """

    completions: pd.DataFrame
    goal: Metric
    margin: float
    searches: Mapping[str, Search]
    notes: tuple[str, ...]
    settings: dict[str, Any]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per method and setting, unsteered and prompting among them; see `compared_methods`."""
        return compared_methods(self.completions, self.goal, margin=self.margin)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row per setting and two methods: the difference of their success; see `method_differences`."""
        return method_differences(self.completions, self.goal, margin=self.margin)

    def plot(self) -> go.Figure:
        """Success of every method at its best and at equal damage, with 95 % intervals; unsteered a line."""
        from steerlens.figures.choices import effect_by_choice

        rows = self.frame
        names = rows["method"].where(rows["setting"] == "", rows["method"] + ", " + rows["setting"])
        drawn = pd.DataFrame(
            {
                "condition": rows["condition"],
                "choice": names.where(rows["role"] != "unsteered", "unsteered"),
                "metric": f"{self.goal.name} and fluent",
                "kind": self.goal.kind,
                "mean": rows["success"],
                "low": rows["success_low"],
                "high": rows["success_high"],
            }
        )
        return effect_by_choice(drawn, choice_title="method", title=f"{self.goal.name}: methods compared")

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page: figure, methods, differences, completions, settings; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        command = None if command is None else text("command", command)
        from steerlens.reports.writing import write_page
        from steerlens.runs.compared_page import compared_page

        return write_page(path, lambda: compared_page(self, command=command))

    def __repr__(self) -> str:
        lines = [f"Comparison({self.settings['what']}, {self.goal.name}; {self.settings['confirmed on']}:"]
        for row in self.frame.to_dict("records"):
            name = f"{row['method']}, {row['setting']}" if row["setting"] else row["method"] or "unsteered"
            said = f"; {row['verdict']}" if row["verdict"] else ""
            interval = f"({row['success_low']:.0%} to {row['success_high']:.0%})"
            lines.append(f"  {name}: {row['success']:.0%} {interval}, surprise {row['surprise']:.2f}{said}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)]) + ")"
