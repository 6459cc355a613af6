"""`Toxicity`: toxicity, disfluency and relevance of every method, with figures and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import beside
from steerlens.experiments.shared.method_answers import against_controls, cost, outcome, rows_of
from steerlens.experiments.shared.method_summary import numbers_table, texts_table, tuning_figure
from steerlens.experiments.shared.result import Result
from steerlens.experiments.toxicity import paper
from steerlens.figures.methods import methods_compared
from steerlens.reports.page import Headline

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Toxicity(Result):
    """The outcome of `toxicity`.

    Attributes:
        frame: one row per group of prompts × method × metric: prompts ("all", and the kinds that the source tells
            apart, such as "toxic" and "nontoxic"), method ("unsteered", "ActAdd", "prompting", "random vector"), layer,
            coeff (chosen on the validation prompts), metric ("toxicity": mean probability; "share toxic": of at least
            one half; "disfluency": mean perplexity under the unsteered model; "relevance"), kind, n (prompts), mean,
            low, high, and the paired difference from the unsteered model: difference, difference_low,
            difference_high, p_value.
        completions: one row per completion of the reported prompts: method, layer, coeff, placement, prompt,
            prompt_number, subset, sample, completion, n_tokens, finished, seed, nats, perplexity, relevance, score,
            toxic (0 or 1), hit (1 − score).
        tuning: the validation prompts: one row per layer × coefficient; `effect` is 1 − mean toxicity. See
            `Comparison.tuning`.
    """

    name: ClassVar[str] = "toxicity"
    title: ClassVar[str] = "Does steering make completions less toxic?"
    differences: ClassVar[tuple[str, ...]] = paper.DIFFERENCES

    completions: pd.DataFrame = field(default_factory=pd.DataFrame)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)

    def answer(self) -> list[str]:
        part = self.frame[self.frame["prompts"] == "all"]
        rows, toxic = rows_of(part, "toxicity"), rows_of(part, "share toxic")
        steered, base = rows["ActAdd"], rows["unsteered"]
        change = wording.change(steered.difference, steered.difference_low, steered.difference_high)
        shares = [wording.share(toxic[one].mean, toxic[one].low, toxic[one].high) for one in ("ActAdd", "unsteered")]
        return [
            f"{outcome(steered, wanted='below').capitalize()}: mean toxicity is {steered.mean:.3f} steered and "
            f"{base.mean:.3f} unsteered, a change of {change} on the same prompts. Of the steered completions "
            f"{shares[0]} count as toxic, of the unsteered ones {shares[1]}.",
            against_controls(rows, "the mean toxicity", wording.change, wanted="below"),
            cost(rows_of(part, "disfluency")),
        ]

    def beside_paper(self) -> pd.DataFrame:
        rows = rows_of(self.frame[self.frame["prompts"] == "all"], "toxicity")
        steered, base = rows["ActAdd"], rows["unsteered"]
        change = wording.change(steered.difference, steered.difference_low, steered.difference_high)
        here = f"{base.mean:.3f} → {steered.mean:.3f}; {change}"
        return beside((one, here) for one in paper.REPORTED)

    def headlines(self) -> list[Headline]:
        rows = self.frame[(self.frame["prompts"] == "all") & (self.frame["metric"] == "toxicity")].set_index("method")
        steered, base = rows.loc["ActAdd"], rows.loc["unsteered"]
        return [
            Headline(
                "mean toxicity, ActAdd",
                f"{steered['mean']:.3f}",
                f"{steered['low']:.3f} to {steered['high']:.3f}; unsteered {base['mean']:.3f}; layer "
                f"{steered['layer']}, coefficient {steered['coeff']:g}",
            ),
            Headline("mean toxicity, unsteered", f"{base['mean']:.3f}", f"{base['low']:.3f} to {base['high']:.3f}"),
            Headline(
                "difference on the same prompts",
                f"{steered['difference']:+.3f}".replace("-", "−"),
                f"{outcome(steered, wanted='below')} (below 0: less toxic); 95 %: "
                + f"{steered['difference_low']:+.3f} to {steered['difference_high']:+.3f}".replace("-", "−"),
            ),
        ]

    def figures(self) -> dict[str, go.Figure]:
        number = self.settings.get("prompts reported", "")
        caption = (
            f"All methods decode alike and continue the same {number} prompts. 95 % intervals. Toxicity is the "
            "scorer's mean probability of toxic; share toxic, the share of completions with at least one half; "
            "disfluency, the perplexity under the unsteered model; relevance, the cosine of prompt and completion."
        )
        title = "Toxicity, disfluency and relevance by method"
        drawn = {caption: methods_compared(self.frame, group="prompts", title=title)}
        if len(self.tuning):
            drawn["Every layer and coefficient on the validation prompts. The marked one was chosen."] = tuning_figure(
                self.tuning, effect_title="1 − mean toxicity", title="Effect against disfluency", share=False
            )
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        caption = "Toxicity, disfluency and relevance (95 % intervals; ↑ ↓ if the paired difference excludes 0)"
        shown = {
            caption: numbers_table(self.frame, group="prompts"),
            "The first prompts with their completions, not selected": texts_table(self.completions),
        }
        if len(self.tuning):
            shown["Choice of layer and coefficient (validation prompts)"] = self.tuning.drop(columns="label")
        shown["All numbers"] = self.frame
        return shown
