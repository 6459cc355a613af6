"""`Sentiment`: success, disfluency and relevance of every method in both directions, with figures and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from steerlens.experiments.sentiment import paper
from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import beside
from steerlens.experiments.shared.method_answers import against_controls, cost, outcome, rows_of
from steerlens.experiments.shared.method_summary import numbers_table, texts_table, tuning_figure
from steerlens.experiments.shared.result import Result
from steerlens.figures.methods import methods_compared
from steerlens.reports.page import Headline

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Sentiment(Result):
    """The outcome of `sentiment`.

    Attributes:
        frame: one row per direction × method × metric: direction, method ("unsteered", "ActAdd", "prompting", "random
            vector"), layer, coeff (chosen on the validation prompts), metric ("success": share with the intended
            sentiment; "disfluency": mean perplexity under the unsteered model; "relevance"), kind, n (prompts), mean,
            low, high, and the paired difference from the unsteered model: difference, difference_low, difference_high,
            p_value.
        completions: one row per completion of the reported prompts: direction, method, layer, coeff, placement, prompt,
            prompt_number, sample, completion, n_tokens, finished, seed, nats, perplexity, relevance, score
            (probability of positive), hit.
        tuning: the validation prompts: one row per direction × layer × coefficient; see `Comparison.tuning`.
    """

    name: ClassVar[str] = "sentiment"
    title: ClassVar[str] = "Does steering change the sentiment of film reviews?"
    differences: ClassVar[tuple[str, ...]] = paper.DIFFERENCES

    completions: pd.DataFrame = field(default_factory=pd.DataFrame)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)

    def answer(self) -> list[str]:
        short, more = [], []
        for direction, part in self.frame.groupby("direction", sort=False):
            rows = rows_of(part, "success")
            steered, base = rows["ActAdd"], rows["unsteered"]
            change = wording.points(steered.difference, steered.difference_low, steered.difference_high)
            name, told = str(direction).capitalize(), outcome(steered, wanted="above")
            short.append(f"{name}: {told}, the share of completions with that sentiment changes by {change}.")
            controls = against_controls(rows, "that share", wording.points, wanted="above")
            more.append(
                f"{name}: that sentiment is found in {wording.share(base.mean, base.low, base.high)} of the "
                f"completions unsteered, in {wording.share(steered.mean, steered.low, steered.high)} steered. "
                f"{controls} {cost(rows_of(part, 'disfluency'))}".rstrip()
            )
        return [" ".join(short), *more]

    def beside_paper(self) -> pd.DataFrame:
        found = self.frame[(self.frame["metric"] == "success") & (self.frame["method"] == "ActAdd")]
        return beside(
            (paper.SUCCESS[row.direction], f"{row.mean:.3f}{wording.limits(f'{row.low:.3f}', f'{row.high:.3f}')}")
            for row in found.itertuples()
            if row.direction in paper.SUCCESS
        )

    def headlines(self) -> list[Headline]:
        found = []
        for direction in self.frame["direction"].unique():
            rows = self.frame[(self.frame["direction"] == direction) & (self.frame["metric"] == "success")]
            rows = rows.set_index("method")
            steered, base = rows.loc["ActAdd"], rows.loc["unsteered"]
            found.append(
                Headline(
                    f"{direction}, ActAdd",
                    f"{steered['mean']:.0%}",
                    f"{steered['low']:.0%} to {steered['high']:.0%}; unsteered {base['mean']:.0%}: "
                    f"{outcome(steered, wanted='above')}; layer {steered['layer']}, coefficient "
                    f"{abs(steered['coeff']):g}",
                )
            )
            found.append(
                Headline(f"{direction}, unsteered", f"{base['mean']:.0%}", f"{base['low']:.0%} to {base['high']:.0%}")
            )
        return found

    def figures(self) -> dict[str, go.Figure]:
        prompts = self.settings.get("prompts reported", {})
        counted = ", ".join(f"{number} ({direction})" for direction, number in prompts.items())
        caption = (
            f"All methods decode alike and continue the same prompts: {counted}. 95 % intervals. Success is the share "
            "of completions with the intended sentiment according to the scorer; disfluency is the perplexity under "
            "the unsteered model; relevance is the cosine similarity of prompt and completion."
        )
        title = "Success, disfluency and relevance by method"
        drawn = {caption: methods_compared(self.frame, group="direction", title=title)}
        if len(self.tuning):
            for direction, rows in self.tuning.groupby("direction", sort=False):
                caption = (
                    f"{direction}: every layer and coefficient on the validation prompts. The marked one was chosen."
                )
                drawn[caption] = tuning_figure(
                    rows, effect_title="success", title=f"Effect against disfluency, {direction}", share=True
                )
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        caption = "Success, disfluency and relevance (95 % intervals; ↑ ↓ if the paired difference excludes 0)"
        shown = {caption: numbers_table(self.frame, group="direction")}
        for direction, rows in self.completions.groupby("direction", sort=False):
            shown[f"The first prompts with their completions, not selected: {direction}"] = texts_table(rows)
        if len(self.tuning):
            shown["Choice of layer and coefficient (validation prompts)"] = self.tuning.drop(columns="label")
        shown["All numbers"] = self.frame
        return shown
