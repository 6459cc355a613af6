"""`Knowledge`: P@K of every condition, its differences from the unsteered model, figures and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from steerlens.errors import SteerlensError
from steerlens.experiments.knowledge.answers import difference, hits
from steerlens.experiments.knowledge.figures import change_by_k, change_by_relation, precision_by_k
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
                limits = f"{_points(row['difference_low'])} to {_points(row['difference_high'])} percentage points"
                value = _points(row["difference"])
                tiles.append(Headline(f"change, {what}, coefficient {row['coeff']:g}", value, limits))
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
