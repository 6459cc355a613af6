"""`Perplexity`: the ratios by bin, layer and coefficient, the essays and the tokens, with their figures and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from steerlens.experiments.perplexity import figures as draw
from steerlens.experiments.perplexity import paper
from steerlens.experiments.perplexity.answering import answered, likelier
from steerlens.experiments.perplexity.document_scoring import ACTADD, PADDED, PROMPT, RANDOM, RELATED, UNRELATED
from steerlens.experiments.perplexity.essay_curve import EssayCurve
from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import Reported, beside
from steerlens.experiments.shared.result import Result
from steerlens.figures import theme
from steerlens.reports.page import Headline

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Perplexity(Result):
    """Perplexity ratios by bin, layer and coefficient.

    `frame`, one row per group of documents, method, layer, coefficient and mask:

    - group ("0–0.5 %", …, "unrelated": no word of the list, "related": a share of at least `related`), kind ("bin",
      "group"), share_low, share_high: the documents;
    - method ("actadd", "random vector", "actadd, space-padded", "prompt"), layer (Int64, NA for the prompt), coeff;
    - mask (bool): whether positions that overlap the injection are left out;
    - n (documents), enough (bool: n ≥ min_documents), tokens;
    - x (mean of the documents' mean change of log-probability, nats per token), x_low, x_high (95 %: Student-t over
      documents), ratio (`exp(−x)`), low, high; ratio_tokens (weighted by tokens instead of documents).

    Attributes:
        tokens: the tokens that rose and fell most under the main condition; see `TokenSums.table`.
        essay: the essay curve of the original post; None if it was not asked for.
    """

    name: ClassVar[str] = "perplexity"
    title: ClassVar[str] = "Does steering make text on the topic more likely, and leave other text unaffected?"
    differences: ClassVar[tuple[str, ...]] = paper.DIFFERENCES

    tokens: pd.DataFrame = field(default_factory=pd.DataFrame)
    essay: EssayCurve | None = None

    def main(self, method: str = ACTADD, *, mask: bool | None = None) -> pd.DataFrame:
        """The rows of one method at the main layer and coefficient, one per group."""
        chosen = self.settings["mask"] if mask is None else mask
        rows = self.frame[(self.frame["method"] == method) & (self.frame["mask"] == chosen)]
        if method != PROMPT:
            rows = rows[(rows["layer"] == self.settings["layer"]) & (rows["coeff"] == self.settings["coeffs"][0])]
        return rows.reset_index(drop=True)

    def answer(self) -> list[str]:
        steered, control, prompted = (
            {str(row.group): row for row in self.main(one).itertuples() if row.kind == "group"}
            for one in (ACTADD, RANDOM, PROMPT)
        )
        rows = self.frame[(self.frame["method"] == ACTADD) & (self.frame["mask"] == self.settings["mask"])]
        where = f"layer {self.settings['layer']}, coefficient {theme.number(self.settings['coeffs'][0])}"
        few = [f"{row.group} text ({row.n:,})" for row in steered.values() if not row.enough]
        said = answered(steered, control, prompted, rows[rows["group"] == RELATED], where)
        if few:
            least = self.settings["min_documents"]
            said.append(f"Few documents stand behind this, fewer than {least:,}: {wording.listed(few)}.")
        return said

    def beside_paper(self) -> pd.DataFrame:
        rows: list[tuple[Reported, str]] = []
        main = {row.group: row for row in self.main().itertuples()}
        for group, said in ((RELATED, paper.ON_TOPIC), (UNRELATED, paper.OTHER)):
            if (row := main.get(group)) is not None:
                rows.append((said, wording.ratio(row.ratio, row.low, row.high)))
        if self.essay is not None:
            rows += self.essay.beside_post()
        return beside(rows)

    def headlines(self) -> list[Headline]:
        """The ratio for related and unrelated text, steered and prompted, with the number of documents."""
        found = []
        where = f"layer {self.settings['layer']}, coefficient {theme.number(self.settings['coeffs'][0])}"
        wanted = [
            (ACTADD, RELATED, f"related text, {where}"),
            (ACTADD, UNRELATED, f"unrelated text, {where}"),
            (PROMPT, RELATED, "related text, prompted"),
            (PROMPT, UNRELATED, "unrelated text, prompted"),
        ]
        for method, group, label in wanted:
            rows = self.main(method)
            for row in rows[rows["group"] == group].itertuples():
                limits = f"95 %: {row.low:.3f} to {row.high:.3f}; " if not math.isnan(row.low) else ""
                few = "" if row.enough else f" (fewer than {self.settings['min_documents']:,})"
                told = {"less likely": "above 1: less likely", "more likely": "below 1: more likely"}
                against = told.get(likelier(row), "not clearly off 1: no change shown")
                found.append(Headline(label, f"× {row.ratio:.3f}", f"{against}; {limits}{row.n:,} documents{few}"))
        bins = self.main()
        bins = bins[bins["kind"] == "bin"]
        note = f"of {len(bins)} have {self.settings['min_documents']:,} documents or more"
        return [*found, Headline("bins with enough documents", str(int(bins["enough"].sum())), note)]

    def figures(self) -> dict[str, go.Figure]:
        """By bin (the paper's figure), by layer, by coefficient, and the essays of the original post."""
        mask, least = self.settings["mask"], self.settings["min_documents"]
        layer, coeff = self.settings["layer"], theme.number(self.settings["coeffs"][0])
        read = "Positions that overlap the injection are " + ("left out." if mask else "included.")
        drawn = {
            "Perplexity of the steered over that of the unsteered model, by the documents' share of words on the topic "
            f"(layer {layer}, coefficient {coeff}). Bars: 95 % intervals over documents. Hollow: bins of fewer than "
            f"{least:,} documents. {read}": draw.bin_figure(self.main(), self.main(PROMPT), self.main(RANDOM)),
        }
        groups = self.frame[(self.frame["kind"] == "group") & (self.frame["mask"] == mask)]
        share = theme.percent(self.settings["related"])
        limits = f"Related: at least {share} of the words are on the topic; unrelated: none."
        steered = groups[groups["method"] == ACTADD]
        if steered.groupby("coeff")["layer"].nunique().max() > 1:
            drawn[f"The same ratio by layer. Bands: 95 % intervals over documents. {limits}"] = draw.layer_figure(
                steered[steered["coeff"].isin(self.settings["coeffs"])], groups[groups["method"] == PROMPT]
            )
        at_layer = steered[steered["layer"] == layer]
        if at_layer["coeff"].nunique() > 1:
            caption = (
                f"The same ratio by coefficient, layer {layer}. Above 1, the steered model finds the text less likely."
            )
            drawn[caption] = draw.coefficient_figure(at_layer)
        if self.essay is not None:
            drawn |= self.essay.figures()
        if len(self.tokens):
            drawn[
                f"Tokens whose log-probability rose and fell most on average in the documents (layer {layer}, "
                f"coefficient {coeff}; tokens with more than {self.settings['least_count']} occurrences)."
            ] = draw.token_figure(self.tokens)
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        """The bins, the tokens, and all numbers."""
        columns = ["group", "method", "mask", "n", "enough", "tokens", "ratio", "low", "high", "ratio_tokens"]
        both = [self.main(method, mask=mask) for method in (ACTADD, PADDED, PROMPT, RANDOM) for mask in (True, False)]
        shown = {"Main condition, by share of words on the topic": pd.concat(both)[columns]}
        if len(self.tokens):
            shown["Tokens whose log-probability (nats) rose and fell most"] = self.tokens.assign(
                token=self.tokens["token"].map(theme.visible_token)
            )
        shown["All numbers"] = self.frame
        if self.essay is not None:
            shown["Essays"] = self.essay.frame
        return shown
