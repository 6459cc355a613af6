"""`Search`: what a search found, how it got there, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.arguments import text
from steerlens.measures.damage import front_and_knee
from steerlens.measures.metrics import Metric
from steerlens.measures.summaries import subject
from steerlens.runs.confirming import Confirmation
from steerlens.runs.search_space import Candidate
from steerlens.steering import Condition

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False, repr=False)
class Search:
    """The outcome of a search.

    Attributes:
        frame: one row per candidate and rung, in the order sampled. Columns: step (batch), candidate, rung, direction,
            layer, site, operation, placement, strength, coeff; n (completions of it so far), success (share on topic
            AND fluent, over all n), effect (share on topic, of this rung), surprise (nats per token, of this rung),
            tokens, spent (tokens in all, unsteered ones included), best (the candidate that looked best then) and
            best_success (its share then).
        candidates: one row per candidate that was sampled, over all its completions: candidate, label, the columns that
            name it, kl and shift (the look at the next tokens; nats), n, effect, surprise, success, tokens.
        completions: every completion, with its candidate (<NA>: unsteered).
        confirmed: the best setting on held-out prompts, see `Confirmation`; None if that was left out.
        candidate: the best setting.
        goal: the metric.
        settings: everything needed to repeat it, as plain data.
        note: "" or what is missing for a claim.
    """

    frame: pd.DataFrame
    candidates: pd.DataFrame
    completions: pd.DataFrame
    confirmed: Confirmation | None
    candidate: Candidate
    goal: Metric
    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def best(self) -> Condition:
        """The best setting, ready for `generate`."""
        return self.candidate.condition

    def front(self) -> pd.DataFrame:
        """The settings that no other beats in effect and surprise, by rising surprise; the knee marked.

        Of those with at least half as many completions as the most sampled one.
        """
        rows = self.candidates[self.candidates["n"] >= self.candidates["n"].max() / 2].reset_index(drop=True)
        wanted = rows["effect"] if self.goal.better == "higher" else 1 - rows["effect"]
        on, knee = front_and_knee(wanted.to_numpy(), rows["surprise"].to_numpy())
        return rows.assign(knee=knee)[on].sort_values("surprise", ignore_index=True)

    def plot(self) -> go.Figure:
        """How it got there: success of the settings against the tokens spent, with the best so far, and the front."""
        from steerlens.figures.searches import search_path

        steps, candidates = (one.assign(condition=one["candidate"]) for one in (self.frame, self.candidates))
        return search_path(steps, candidates, goal=self.goal.name, title=f"Search: {self.title}")

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page with figure, confirmation, completions, tables and settings; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        command = None if command is None else text("command", command)
        from steerlens.reports.writing import write_page
        from steerlens.runs.search_page import search_page

        return write_page(
            path,
            lambda: search_page(
                self.frame,
                self.candidates,
                self.front(),
                self.completions,
                self.confirmed,
                self.candidate,
                self.goal,
                self.settings,
                figure=self.plot(),
                title=self.title,
                note=self.note,
                command=command,
            ),
        )

    @property
    def title(self) -> str:
        """What was searched for, and with what."""
        return f"{self.settings.get('goal')} with {subject(self.settings)} on {self.settings.get('model', 'a model')}"

    def __repr__(self) -> str:
        best = self.candidates[self.candidates["label"] == self.candidate.label].iloc[0]
        spent = int(self.frame["spent"].iloc[-1])
        lines = [
            f"Search({self.title}: {len(self.candidates)} settings sampled, {spent:,} tokens",
            f"  best: {self.candidate.label}, coefficient {self.candidate.injection.vector.coeff:.3g}",
            f"  when chosen: {best['success']:.0%} of {best['n']} on topic and fluent",
        ]
        if self.confirmed is not None:
            told = [
                f"{row.role} {row.success:.0%} ({row.success_low:.0%} to {row.success_high:.0%})"
                for row in self.confirmed.table.itertuples()
            ]
            lines.append(f"  confirmed on {self.confirmed.settings['confirmed on']}:")
            lines.append(f"    on topic and fluent: {', '.join(told)}; {self.confirmed.verdict}")
        elif self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines) + ")"
