"""`Gallery`: completions of the post's examples, how often each shows its effect, and the page that shows them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from steerlens.experiments.gallery import post
from steerlens.experiments.gallery.figures import effect_by_example
from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import POST, Reported, beside
from steerlens.experiments.shared.depth import PAPER_LAYERS
from steerlens.experiments.shared.result import Result
from steerlens.figures import theme
from steerlens.figures.completions import SideBySide, completions_side_by_side
from steerlens.measures.metrics import Metric, word_count
from steerlens.measures.statistics import wilson_interval
from steerlens.reports.page import Completions, Headline

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Gallery(Result):
    """Completions of the post's examples.

    Attributes:
        frame: one row per completion: number (in the post), example (name), verdict (of the post), prompt, addition,
            post_layers and layers (text: those of GPT-2-XL, and those steered here), coeff (text: as steered here),
            role ("unsteered", "steered", "random"), sample, completion, n_tokens, score (how many of the example's
            words), best (the one picked of the first `best_of`).
        not_run: by name, why an example could not be run on this model.
    """

    name: ClassVar[str] = "gallery"
    title: ClassVar[str] = "Do the original post’s examples work here?"
    differences: ClassVar[tuple[str, ...]] = post.DIFFERENCES

    not_run: dict[str, str] = field(default_factory=dict)

    def summary(self) -> pd.DataFrame:
        """One row per example and role: the share of completions with any of its words.

        Columns: number, example, verdict, addition, post_layers, layers, role, n, share, low, high (Wilson, 95 %),
        words (mean per completion).
        """
        keys = ["number", "example", "verdict", "addition", "post_layers", "layers", "role"]
        rows = []
        for key, group in self.frame.groupby(keys, sort=False):
            share = wilson_interval(float((group["score"] > 0).sum()), len(group))
            row = dict(zip(keys, key, strict=True))
            row |= {"n": len(group), "share": share.estimate, "low": share.low, "high": share.high}
            rows.append(row | {"words": group["score"].mean()})
        return pd.DataFrame(rows)

    def best(self) -> pd.DataFrame:
        """The rows of `frame` that the rule picked, one per example and role."""
        return self.frame[self.frame["best"]]

    def outcomes(self) -> pd.DataFrame:
        """One row per example: example, verdict (of the post), the summary's share, low and high for each role as
        columns (unsteered, unsteered_low, …), and here: "more often" or "less often" than unsteered, where the 95 %
        intervals do not meet, else "not clearly more often".
        """
        table = self.summary()
        wide = table.pivot(index="example", columns="role", values=["share", "low", "high"])
        found = table.drop_duplicates("example")[["example", "verdict"]].set_index("example")
        for role in wide["share"].columns:
            for column in ("share", "low", "high"):
                found[role if column == "share" else f"{role}_{column}"] = wide[(column, role)]
        found["here"] = "not clearly more often"
        found.loc[found["steered_low"] > found["unsteered_high"], "here"] = "more often"
        found.loc[found["steered_high"] < found["unsteered_low"], "here"] = "less often"
        return found.reset_index()

    def answer(self) -> list[str]:
        table = self.outcomes()
        clear, n = table[table["here"] == "more often"], int(self.frame["sample"].nunique())
        worked = table[table["verdict"] == "works"]
        which = f": {wording.listed(list(clear['example']))}" if len(clear) else ""
        both = int((worked["here"] == "more often").sum())
        said = [
            f"{_in_short(len(clear), len(table))}: "
            f"{len(clear)} of {len(table)} show their effect clearly more often than unsteered (95 % intervals do not "
            f"meet, {n} completions of each){which}.",
            f"Of the {len(worked)} that work in the post (GPT-2-XL, best of three picked by hand), {both} do so here.",
        ]
        if len(less := table[table["here"] == "less often"]):
            said.append(
                f"{len(less)} show it clearly less often than unsteered: {wording.listed(list(less['example']))}."
            )
        if "random" in table and len(clear):
            beyond = int((clear["steered_low"] > clear["random_high"]).sum())
            said.append(f"{beyond} of these {len(clear)} also show it clearly more often than with a random vector.")
        if n < _FEW:
            said.append(
                f"With {n} completions of each, an interval spans up to {_widest(table):.0f} points, so only a large "
                "effect can be seen."
            )
        return said

    def beside_paper(self) -> pd.DataFrame:
        return beside(
            (
                Reported(row.example, post.VERDICTS.get(row.verdict, row.verdict), "GPT-2-XL", POST),
                f"{row.here} ({wording.share(row.steered, row.steered_low, row.steered_high)}; unsteered "
                f"{theme.percent(row.unsteered)})",
            )
            for row in self.outcomes().itertuples()
        )

    def headlines(self) -> list[Headline]:
        table = self.summary()
        wide = table.pivot(index="example", columns="role", values="share")
        more = int((wide["steered"] > wide["unsteered"]).sum())
        done = f"{len(self.not_run)} could not be run" if self.not_run else "all were run"
        tiles = [
            Headline("examples", str(len(wide)), done),
            Headline("effect more frequent than unsteered", f"{more} of {len(wide)}", "by share of completions alone"),
        ]
        outcomes = self.outcomes()
        names = list(outcomes.loc[outcomes["here"] == "more often", "example"])
        told = ", ".join(names) or "none"
        tiles.append(Headline("clearly so (intervals that do not meet)", f"{len(names)} of {len(wide)}", told))
        if "random" in wide:
            beaten = f"{int((wide['steered'] > wide['random']).sum())} of {len(wide)}"
            tiles.append(Headline("more frequent than with a random vector", beaten, "of equal norm"))
        return tiles

    def figures(self) -> dict[str, go.Figure]:
        return {
            "Share of completions with any of the words that stand for the effect (95 % intervals).": (
                effect_by_example(self.summary())
            )
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        found = {"Examples": _shown(self.summary())}
        if self.not_run:
            rows = [{"example": name, "why": why} for name, why in self.not_run.items()]
            found["Not run on this model"] = pd.DataFrame(rows)
        return found

    def completions_shown(self) -> list[Completions]:
        return [self._section(str(example), rows) for example, rows in self.frame.groupby("example", sort=False)]

    def _section(self, example: str, rows: pd.DataFrame) -> Completions:
        facts = rows.iloc[0]
        info = self.settings["examples"][example]
        metric = word_count(*info["words"], name=info["looked_for"], literal=True)
        verdict = {"works": "worked in the post", "fails": "a failure in the post"}.get(
            facts["verdict"], facts["verdict"]
        )
        scale = self.settings["coeff_scale"]
        scaled = "" if scale == 1 else f", all × {scale:g}"
        line = f"{facts['addition']}{scaled}; {_layers_text(facts)}; {verdict}."
        shown = rows[rows["role"] != "random"].assign(label=lambda r: r["role"])
        everything = completions_side_by_side(shown, metric, labels=["unsteered", "steered"], n=len(rows))
        return Completions(
            self._best(shown, metric),
            heading=f"{facts['number']}. {example}",
            lines=(line, info["note"]) if info["note"] else (line,),
            folded=everything,
            folded_title=f"All {rows['sample'].nunique()} of each",
        )

    def _best(self, rows: pd.DataFrame, metric: Metric) -> SideBySide:
        picked = rows[rows["best"]]
        samples = {row.role: row.sample for row in picked.itertuples()}
        # One line of the table: each side has its own sample number, told below.
        table = completions_side_by_side(picked.assign(sample=0), metric, labels=["unsteered", "steered"], n=1)
        of = self.settings["best_of"]
        footnote = (
            f"Best of the first {of} by the number of “{metric.name}”: sample {samples['unsteered']} unsteered, "
            f"{samples['steered']} steered."
        )
        notes = tuple(
            f"{int(picked.loc[picked['role'] == role, 'score'].iloc[0])} of the words" for role in table.columns
        )
        blocks = tuple((prompt, tuple(("★", cells) for _, cells in lines)) for prompt, lines in table.blocks)
        return dataclasses.replace(table, notes=notes, footnote=footnote, blocks=blocks)  # type: ignore[arg-type]


_FEW = 50
"""Completions, below which the page says how wide the intervals are."""


def _in_short(some: int, n: int) -> str:
    """The answer in a word or two, by how many of the examples show their effect."""
    if some in (0, n):
        return "Yes" if some else "No"
    return "A few do" if some <= n / 4 else "Some do" if some <= n * 3 / 4 else "Most do"


def _widest(outcomes: pd.DataFrame) -> float:
    """The widest interval of the steered shares, in percentage points."""
    return float(100 * (outcomes["steered_high"] - outcomes["steered_low"]).max())


def _layers_text(facts: pd.Series) -> str:
    if facts["layers"] == facts["post_layers"]:
        return f"layer {facts['layers']}, as in the post"
    return f"layer {facts['layers']} (the post: {facts['post_layers']} of {PAPER_LAYERS})"


def _shown(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary as the page shows it, one line per example."""
    table = summary.assign(
        text=[
            f"{theme.percent(row.share)} ({theme.percent(row.low)} to {theme.percent(row.high)})"
            for row in summary.itertuples()
        ]
    )
    keys = ["number", "example", "verdict", "addition", "post_layers", "layers"]
    wide = table.pivot(index=keys, columns="role", values="text").reset_index()
    order = {name: i for i, name in enumerate(summary["example"].drop_duplicates())}
    wide = wide.sort_values("example", key=lambda names: names.map(order))
    columns = [*keys, *(role for role in ("unsteered", "steered", "random") if role in wide)]
    return wide[columns].rename(columns={"post_layers": "post's layer", "layers": "layer here"}).reset_index(drop=True)
