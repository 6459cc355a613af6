"""`Sweep`: what a sweep found: completions, summaries, effects, fronts, verdicts, figures, pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.arguments import finite_number, shown, text, whole_number
from steerlens.errors import SteerlensError
from steerlens.measures.damage import MARGIN, effects
from steerlens.measures.findings import NOTHING, differing
from steerlens.measures.metrics import Metric
from steerlens.measures.statistics import metric_interval
from steerlens.measures.summaries import best_condition, number, subject, unsteered
from steerlens.measures.verdicts import judged, verdicts
from steerlens.models import HookedModel
from steerlens.runs.confirming import Confirmation, confirm
from steerlens.runs.controls import Controls
from steerlens.runs.planning import Plan
from steerlens.showing import Shown
from steerlens.steering.prompts import PromptLike

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Shown):
    """The outcome of a sweep.

    Attributes:
        frame: one row per completion: the columns of `generate` (with surprise, unless `damage=False`), `role`
            ("unsteered", "steered", "random", "shuffled", "negated", "prompting") and one column per metric.
        metrics: the metrics, in the order of their columns.
        settings: everything needed to repeat it, as plain data; "controls left out" says which controls could not be
            made, and why.
        plan: its conditions, by number.
    """

    frame: pd.DataFrame
    metrics: tuple[Metric, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per condition and metric, with 95 % intervals.

        Columns: condition, label, role, layer, coeff, placement, metric, kind, better, n, mean, low, high. Shares have
        Wilson intervals, means Student-t intervals. The unsteered baseline is a row with layer <NA> and coeff 0.
        """
        rows = []
        keys = ["condition", "label", "role", "layer", "coeff", "placement"]
        keys += ["strength"] if "strength" in self.frame else []
        for key, group in self.frame.groupby(keys, sort=False, dropna=False):
            for metric in self.metrics:
                interval = metric_interval(group[metric.column], metric.kind)
                rows.append(
                    dict(zip(keys, key, strict=True))
                    | {
                        "metric": metric.name,
                        "kind": metric.kind,
                        "better": metric.better,
                        "n": interval.n,
                        "mean": interval.mean,
                        "low": interval.low,
                        "high": interval.high,
                    }
                )
        return pd.DataFrame(rows).astype({"layer": "Int64"})

    def best(self, metric: Metric | str | None = None) -> pd.Series:
        """The summary row of the steered condition with the best mean of `metric` (the first metric by default).

        That is the largest, or the smallest for a metric with `better="lower"`. The best of many is good by chance too:
        see `verdicts`, and `confirm`.
        """
        return best_condition(self._of(metric))

    def effects(self, metric: Metric | str | None = None, *, margin: float = MARGIN) -> pd.DataFrame:
        """One row per condition: effect, damage, and success (on topic AND fluent), with 95 % intervals.

        See `steerlens.measures.damage.effects` for the columns. A completion is fluent if its surprise under the
        unsteered model is at most `margin` nats per token above the unsteered mean of its prompt.

        Raises:
            SteerlensError: the sweep was run with `damage=False`.
        """
        chosen, margin = self._metric(metric), finite_number("margin", margin)
        return effects(self.frame, chosen.column, chosen.kind, margin=margin, better=chosen.better)

    def front(self, metric: Metric | str | None = None, *, margin: float = MARGIN) -> pd.DataFrame:
        """The steered conditions that no other beats in effect and surprise, by rising surprise; the knee marked."""
        table = self.effects(metric, margin=margin)
        return table[table["front"]].sort_values("surprise", ignore_index=True)

    def verdicts(self, metric: Metric | str | None = None, *, margin: float = MARGIN) -> pd.DataFrame:
        """What can be said of every steered condition, in words, corrected for the number of conditions tried.

        See `steerlens.measures.verdicts.verdicts` for the columns and the verdicts.
        """
        chosen, margin = self._metric(metric), finite_number("margin", margin)
        return verdicts(self.frame, chosen.column, chosen.kind, margin=margin, better=chosen.better)

    def judged(self, metric: Metric | str | None = None) -> pd.DataFrame | None:
        """`effects` with each condition's verdict, by condition; None for a sweep with `damage=False`."""
        chosen = self._metric(metric)
        return judged(self.frame, chosen.column, chosen.kind, better=chosen.better)

    def confirm(
        self,
        model: HookedModel,
        prompts: PromptLike | Sequence[PromptLike] | None = None,
        *,
        metric: Metric | str | None = None,
        condition: int | None = None,
        n: int | None = None,
        seed: int | None = None,
        controls: Controls = "standard",
        margin: float = MARGIN,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> Confirmation:
        """The best condition measured anew, on fresh samples and held-out prompts, with all its controls.

        The best of many is good by chance, too; its numbers here are not those that it was chosen by. It is held
        against the unsteered model, a random vector, the shuffled contrast, the negated vector and prompting, in
        differences paired by prompt and sample with intervals of a bootstrap over prompts and samples.

        Args:
            prompts: others than the sweep's; by default the same, with fresh samples (which the result says).
            metric: what it is chosen by and measured in; by default the first.
            condition: its number; by default the steered one with the most success.
            n: samples per prompt; by default as many as the sweep has.
            seed: by default another than the sweep's.
            controls, margin, batch_size, progress: as of `sweep` and `verdicts`.

        Raises:
            SteerlensError: a prompt that the condition was chosen on, a sweep that does not know its conditions (one
                that was put together from a frame).
        """
        if self.plan is None:
            raise SteerlensError("this sweep was put together from a frame and knows no vectors; run it with sweep(…)")
        one = self._metric(metric)
        number = self._chosen(one) if condition is None else whole_number("condition", condition, least=0)
        if number >= len(self.plan.conditions):
            raise SteerlensError(f"there is no condition {number}; the sweep has {len(self.plan.conditions)}")
        return confirm(
            model,
            self.plan,
            number,
            prompts,
            one,
            n=n,
            seed=seed,
            controls=controls,
            margin=finite_number("margin", margin),
            batch_size=batch_size,
            progress=progress,
        )

    def _chosen(self, metric: Metric) -> int:
        """The number of the steered condition with the most success (of the best mean, without a damage)."""
        if "surprise" not in self.frame:
            return int(self.best(metric)["condition"])
        rows = self.effects(metric)
        rows = rows[(rows["role"] == "steered") & rows["success"].notna()]
        if rows.empty:
            return int(self.best(metric)["condition"])  # which says what is wrong
        way = -1 if metric.kind == "mean" and metric.better == "lower" else 1
        best = rows.assign(success=way * rows["success"]).sort_values(["success", "surprise"], ascending=[False, True])
        return int(best["condition"].iloc[0])

    def baseline(self, metric: Metric | str | None = None) -> pd.Series:
        """The summary row of the unsteered condition for `metric` (the first metric by default)."""
        return unsteered(self._of(metric))

    def plot(self, metric: Metric | str | None = None) -> go.Figure:
        """`metric` (the first by default) against layer, one line per coefficient, with intervals and the baseline."""
        from steerlens.figures import layer_sweep

        one = self._metric(metric)
        found = differing(self.frame, one.column, one.kind, better=one.better)
        return layer_sweep(self._of(metric), mark_best=found, remark="" if found else NOTHING)

    def report(self, path: str | Path, *, command: str | None = None, confirmed: Confirmation | None = None) -> Path:
        """One self-contained HTML page with figures, table, completions and settings; returns its path.

        Args:
            confirmed: what `confirm` gave, to show beside what it was chosen on.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        command = None if command is None else text("command", command)
        if confirmed is not None and not isinstance(confirmed, Confirmation):
            raise SteerlensError(f"confirmed must be what Sweep.confirm gave, got {shown(confirmed)}")
        from steerlens.reports.writing import write_page
        from steerlens.runs.sweep_page import sweep_page

        return write_page(
            path,
            lambda: sweep_page(
                self.frame, self.summary, self.metrics[0], self.settings, command=command, confirmed=confirmed
            ),
        )

    def _told(self) -> tuple[str, Mapping[str, object]]:
        facts: dict[str, object] = {
            "conditions": self.frame["condition"].nunique(),
            "completions": f"{len(self.frame):,}",
        }
        rows = self._of(None)
        if rows.loc[rows["role"] == "steered", "mean"].notna().any():
            best, one = self.best(), self.metrics[0]
            end = "highest" if one.better == "higher" else "lowest"
            if not differing(self.frame, one.column, one.kind, better=one.better):
                facts["finding"] = NOTHING
            facts[f"{end} {one.name}"] = f"{number(best)} at layer {best['layer']}, coefficient {best['coeff']:g}"
            facts["unsteered"] = number(self.baseline())
        return f"{subject(self.settings)} on {self.settings.get('model', 'a model')}", facts

    def _of(self, metric: Metric | str | None) -> pd.DataFrame:
        return self.summary[self.summary["metric"] == self._metric(metric).name]

    def _metric(self, metric: Metric | str | None) -> Metric:
        if metric is None:
            return self.metrics[0]
        name = metric if isinstance(metric, str) else getattr(metric, "name", None)
        for one in self.metrics:
            if one.name == name:
                return one
        has = ", ".join(one.name for one in self.metrics)
        raise SteerlensError(f"no metric {shown(metric if name is None else name)} in this sweep; it has {has}")
