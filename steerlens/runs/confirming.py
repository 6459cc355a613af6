"""`Confirmation`: what a chosen condition is worth on samples and prompts that it was not chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.arguments import shown, text, whole_number
from steerlens.engine import Sampling, generate
from steerlens.errors import SteerlensError
from steerlens.measures.confirming import confirmed_table, confirmed_verdict
from steerlens.measures.measuring import measure_completions
from steerlens.measures.metrics import Metric
from steerlens.models import HookedModel, require_model, run_settings
from steerlens.runs.controls import Controls, read_controls
from steerlens.runs.planning import Plan, plan_sweep
from steerlens.steering import Steering
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False, repr=False)
class Confirmation:
    """A condition that was chosen, and its controls, measured anew.

    Attributes:
        frame: one row per completion, as of a Sweep.
        metric: what it was chosen by.
        margin: of fluency, in nats per token.
        settings: everything needed to repeat it; "chosen on" and "confirmed on" say how the samples differ.
    """

    frame: pd.DataFrame
    metric: Metric
    margin: float
    settings: dict[str, Any]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per condition, the steered one first: effect, damage, success, and the steered one's lead in success.

        See `steerlens.measures.confirming.confirmed_table`.
        """
        return confirmed_table(self.frame, self.metric, margin=self.margin)

    @cached_property
    def row(self) -> pd.Series:
        """The row of `verdicts`: difference of success from unsteered with its interval, p, verdict, more, why."""
        return confirmed_verdict(self.frame, self.metric, margin=self.margin)

    @property
    def verdict(self) -> str:
        """What can be said, in words; see `steerlens.measures.verdicts.verdicts`."""
        return str(self.row["verdict"])

    def plot(self) -> go.Figure:
        """Success (on topic AND fluent) of every condition, with 95 % intervals."""
        from steerlens.figures.choices import effect_by_choice
        from steerlens.measures.summaries import CONTROLS

        rows = self.table.assign(
            choice=self.table["role"].map(lambda role: CONTROLS.get(role, role)),
            metric=f"{self.metric.name}, fluent" if self.metric.kind == "share" else self.metric.name,
            kind=self.metric.kind,
            mean=self.table["success"],
            low=self.table["success_low"],
            high=self.table["success_high"],
        )
        twice = rows["choice"].duplicated(keep=False)
        rows["choice"] = rows["choice"].where(~twice, rows["label"])
        return effect_by_choice(rows, choice_title="condition", title=f"{self.settings['condition']}, confirmed")

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page: verdict, figure, table, completions, settings; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        command = None if command is None else text("command", command)
        from steerlens.reports.writing import write_page
        from steerlens.runs.confirmation_page import confirmation_page

        return write_page(path, lambda: confirmation_page(self, command=command))

    def __str__(self) -> str:
        row, steered = self.row, self.table.iloc[0]
        share = self.metric.kind == "share"
        value = f"{steered['success']:.1%}" if share else f"{steered['success']:.3g}"
        more = "" if pd.isna(row["more"]) else f" ({row['more']} more samples per prompt would tell)"
        what = "on topic and fluent" if share and self.metric.better == "higher" else self.metric.name
        return (
            f"{self.settings['condition']}: {self.verdict}{more}; {what} {value}, {row['why']}; "
            f"chosen on {self.settings['chosen on']}, confirmed on {self.settings['confirmed on']}"
        )

    def __repr__(self) -> str:
        return f"Confirmation({self})"


def confirm(
    model: HookedModel,
    plan: Plan,
    number: int,
    prompts: PromptLike | Sequence[PromptLike] | None,
    metric: Metric,
    *,
    n: int | None,
    seed: int | None,
    controls: Controls,
    margin: float,
    batch_size: int | None,
    progress: bool | None,
) -> Confirmation:
    """The condition `number` of a plan and its controls, sampled anew; see `Sweep.confirm`."""
    require_model(model)
    if plan.roles[number] != "steered":
        raise SteerlensError(f"condition {number} is {plan.roles[number]!r}; give the number of a steered one")
    given, held_out = _held_out(model, plan, prompts)
    drawn = plan.sampling.seed
    fresh = replace(
        plan.sampling,
        n=plan.sampling.n if n is None else whole_number("n", n, least=1),
        seed=drawn + (1 if drawn < 2**62 else -1) if seed is None else seed,
    )
    if not held_out and fresh.seed == drawn:
        raise SteerlensError(f"seed {drawn} on the same prompts would repeat the samples; give another, or prompts")
    condition = plan.conditions[number]
    words = plan.controls.prompting
    asked = [one for one in read_controls(controls) if one != "prompting" or not words]
    asked += [one for one in words if "prompting" in read_controls(controls)]
    cells = [(1.0, condition)]
    fine = plan_sweep(model, plan.what, cells, given, sampling=fresh, placement=plan.placement, asked=asked)
    frame = generate(
        model,
        given,
        list[Steering](fine.conditions),
        sampling=fresh,
        surprise=True,
        batch_size=batch_size,
        progress=progress,
    )
    frame.insert(2, "role", frame["condition"].map(dict(enumerate(fine.roles))))
    measure_completions(frame, (metric,))
    tried = plan.roles.count("steered")
    settings = {
        "condition": condition.label + ("" if condition.layer is None else f", layer {condition.layer}"),
        "chosen on": _said(plan.prompts, plan.sampling, f", the best of {tried}" if tried > 1 else ""),
        "confirmed on": _said(given, fresh, "" if held_out else " (the same prompts: nothing is held out)"),
        "prompts": [prompt.text for prompt in given],
        **fine.controls.record(),
        **asdict(fresh),
        **run_settings(model),
    }
    return Confirmation(frame, metric, margin, settings)


def _held_out(
    model: HookedModel, plan: Plan, prompts: PromptLike | Sequence[PromptLike] | None
) -> tuple[list[Prompt], bool]:
    """The prompts to confirm on, and whether they are others than those of the plan."""
    if prompts is None:
        return list(plan.prompts), False
    given = list({prompt.ids: prompt for prompt in read_prompts(model, prompts)}.values())
    known = {prompt.ids for prompt in plan.prompts}
    for prompt in given:
        if prompt.ids in known:
            raise SteerlensError(
                f"the prompt {shown(prompt.text)} is one that the condition was chosen on; give others, or none "
                "to draw fresh samples of the same"
            )
    return given, True


def _said(prompts: Sequence[Prompt], sampling: Sampling, end: str) -> str:
    several = "prompt" if len(prompts) == 1 else "prompts"
    return f"{len(prompts)} {several} × {sampling.n} samples, seed {sampling.seed}{end}"
