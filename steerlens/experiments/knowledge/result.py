"""`Knowledge`: P@K of every condition, its differences from the unsteered model, figures and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from steerlens.errors import SteerlensError
from steerlens.experiments.knowledge import paper
from steerlens.experiments.knowledge.answers import difference, hits
from steerlens.experiments.knowledge.figures import change_by_k, change_by_relation, precision_by_k
from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import beside
from steerlens.experiments.shared.result import Result
from steerlens.figures import theme
from steerlens.reports.page import Headline

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Knowledge(Result):
    """P@K with and without steering.

    Attributes:
        frame: one row per condition and K: condition (number), label, role ("unsteered", "steered", "random"), layer,
            coeff, k, n, p_at_k, low, high; and the paired difference from the unsteered model, difference,
            difference_low, difference_high, p_value (NaN for the unsteered model itself).
        sentences: one row per condition and sentence: condition, role, coeff, row (of the data), relation, subject,
            prompt, answer, rank (tokens more likely than the answer: 0 is best), logprob (nats). Both are NaN where
            steering overflows the model, and with them all shares of that condition.
        left_out: how many sentences could not be asked, by reason.
    """

    name: ClassVar[str] = "knowledge"
    title: ClassVar[str] = "Does the model keep its knowledge under steering?"
    differences: ClassVar[tuple[str, ...]] = paper.DIFFERENCES

    sentences: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: dict[str, int] = field(default_factory=dict)

    def at(self, k: int) -> pd.DataFrame:
        """The rows of `frame` for one K, or for the nearest one on a logarithmic scale."""
        ks = self.frame["k"].unique()
        nearest = min(ks, key=lambda one: abs(math.log(one / k)))
        return self.frame[self.frame["k"] == nearest]

    def log_probability(self) -> pd.DataFrame:
        """The mean change in the answers' log-probability, one row for every condition but the unsteered one.

        Columns: label, role, layer, coeff, n, unsteered, steered (means, nats per answer), difference,
        difference_low, difference_high (paired Student-t, 95 %), p_value.
        """
        wide = self.sentences.pivot(index="row", columns="condition", values="logprob")
        rows = []
        for row in self.frame.drop_duplicates("condition").itertuples():
            if row.role == "unsteered":
                continue
            rows.append(
                {
                    "label": row.label,
                    "role": row.role,
                    "layer": row.layer,
                    "coeff": row.coeff,
                    "n": len(wide),
                    "unsteered": wide[0].mean(),
                    "steered": wide[row.condition].mean(skipna=False),
                    **difference(wide[row.condition], wide[0], kind="mean"),
                }
            )
        return pd.DataFrame(rows)

    def by_relation(self, k: int = 10, coeff: float | None = None) -> pd.DataFrame:
        """P@K of each relation, unsteered and steered (at the largest coefficient by default).

        Columns: relation, n, unsteered, steered, difference, low, high (Bonett-Price, 95 %, per relation).
        """
        steered = self.sentences[self.sentences["role"] == "steered"]
        coeff = steered["coeff"].max() if coeff is None else float(coeff)
        listed = ", ".join(f"{one:g}" for one in sorted(steered["coeff"].unique()))
        steered = steered[steered["coeff"] == coeff].set_index("row")
        base = self.sentences[self.sentences["role"] == "unsteered"].set_index("row")
        if steered.empty:
            raise SteerlensError(f"no steered condition has coefficient {coeff:g}; use one of {listed}")
        rows = []
        for relation, part in base.groupby("relation", sort=True):
            before, after = hits(part["rank"], k), hits(steered.loc[part.index, "rank"], k)
            change = difference(after, before, kind="share")
            rows.append(
                {
                    "relation": relation or "–",
                    "n": len(part),
                    "unsteered": before.mean(),
                    "steered": after.mean(),
                    "difference": change["difference"],
                    "low": change["difference_low"],
                    "high": change["difference_high"],
                }
            )
        return pd.DataFrame(rows)

    def answer(self) -> list[str]:
        rows = self.at(10)
        k, base = int(rows["k"].iloc[0]), rows[rows["role"] == "unsteered"].iloc[0]
        steered, random = ([one for one in rows.itertuples() if one.role == role] for role in ("steered", "random"))
        first = (
            f"{_kept(steered[0])} at coefficient {steered[0].coeff:g}. Unsteered, the answer is among the {k} "
            f"likeliest next tokens in {wording.share(base['p_at_k'], base['low'], base['high'])} of "
            f"{int(base['n']):,} sentences; steered, that share changes by {_change(steered[0])}."
        )
        said = [first]
        said += [
            f"At coefficient {one.coeff:g} it changes by {_change(one)}: {_kept(one)[:1].lower()}{_kept(one)[1:]}."
            for one in steered[1:]
        ]
        if random:
            told = [f"{_change(one)} at coefficient {one.coeff:g}" for one in random]
            said.append(
                f"A random vector of equal norm, the effect of any push of that size, changes it by "
                f"{wording.listed(told)}."
            )
        words = [
            f"{wording.change(one.difference, one.difference_low, one.difference_high, digits=2)} nats at coefficient "
            f"{one.coeff:g}"
            for one in self.log_probability().itertuples()
            if one.role == "steered"
        ]
        said.append(f"The log-probability of the answers changes on average by {wording.listed(words)}.")
        return said

    def beside_paper(self) -> pd.DataFrame:
        rows = self.at(10)
        first = next(one for one in rows.itertuples() if one.role == "steered")
        here = f"P@{first.k}: {_change(first)}, coefficient {first.coeff:g}"
        asked = f"{int(first.n):,} ({self.settings.get('data', 'own data')})"
        return beside([(paper.CHANGE, here), (paper.ASKED, asked)])

    def headlines(self) -> list[Headline]:
        rows = self.at(10)
        k, n = int(rows["k"].iloc[0]), int(rows["n"].iloc[0])
        base = rows[rows["role"] == "unsteered"].iloc[0]
        tiles = [
            Headline(
                f"P@{k}, unsteered", f"{base['p_at_k']:.1%}", f"{base['low']:.1%} to {base['high']:.1%}, n = {n:,}"
            )
        ]
        for role, what in (("steered", "steered"), ("random", "random vector of equal norm")):
            for _, row in rows[rows["role"] == role].iterrows():
                told = _TOLD[wording.side(row["difference_low"], row["difference_high"])]
                limits = f"{told}; {_points(row['difference_low'])} to {_points(row['difference_high'])}"
                value = _points(row["difference"])
                tiles.append(Headline(f"change in points, {what}, coefficient {row['coeff']:g}", value, limits))
        return tiles

    def figures(self) -> dict[str, go.Figure]:
        drawn = {
            "P@K: share of sentences whose answer is among the K most likely next tokens.": precision_by_k(self.frame),
            "Change in P@K from the unsteered model, on the same sentences (95 % intervals, pointwise in K).": (
                change_by_k(self.frame)
            ),
        }
        relations = self.by_relation()
        if len(relations) > 1:
            drawn["Change in P@10 by relation, at the largest coefficient."] = change_by_relation(relations, k=10)
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        asked = pd.DataFrame(
            [
                {"sentences": "read", "count": self.settings.get("sentences read", len(self.sentences))},
                {"sentences": "asked", "count": int(self.frame["n"].iloc[0])},
                *({"sentences": f"left out: {reason}", "count": count} for reason, count in self.left_out.items()),
            ]
        )
        return {
            "Sentences": asked,
            "Mean log-probability of the answer (nats)": _shown_change(self.log_probability()),
            "P@10 by relation, largest coefficient": _shown_relations(self.by_relation()),
            "All numbers": self.frame,
        }


_TOLD = {"below": "knows less", "above": "knows more", "unclear": "no change shown"}


def _kept(row: Any) -> str:
    """Whether knowledge is kept, by the interval of the change in P@K."""
    if math.isnan(row.difference_low):
        return "No answer: the steered model's numbers overflow"
    told = wording.side(row.difference_low, row.difference_high)
    if told == "below":
        return "No, some of it is lost"
    if told == "above":
        return "Yes, and more sentences are answered"
    return f"No loss is shown (one of up to {abs(100 * min(row.difference_low, 0)):.1f} points is not excluded)"


def _change(row: Any) -> str:
    return wording.points(row.difference, row.difference_low, row.difference_high)


def _points(share: float) -> str:
    """A difference of shares in percentage points, signed."""
    return _signed(100 * share, 2)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _shown_change(table: pd.DataFrame) -> pd.DataFrame:
    """`Knowledge.log_probability` as the page shows it."""
    return pd.DataFrame(
        {
            "condition": table["role"].replace({"random": "random vector"}),
            "layer": table["layer"],
            "coefficient": table["coeff"],
            "unsteered": table["unsteered"],
            "steered": table["steered"],
            "change (95 %)": [
                f"{_signed(row.difference, 3)} ({_signed(row.difference_low, 3)} to {_signed(row.difference_high, 3)})"
                for row in table.itertuples()
            ],
        }
    )


def _shown_relations(table: pd.DataFrame) -> pd.DataFrame:
    """`Knowledge.by_relation` as the page shows it."""
    return pd.DataFrame(
        {
            "relation": table["relation"],
            "n": table["n"],
            "unsteered": [theme.percent(share) for share in table["unsteered"]],
            "steered": [theme.percent(share) for share in table["steered"]],
            "change in points (95 %)": [
                f"{_points(row.difference)} ({_points(row.low)} to {_points(row.high)})" for row in table.itertuples()
            ],
        }
    )
