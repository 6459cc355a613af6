"""`Gallery`: completions of the post's examples, how often each shows its effect, and the page that shows them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from steerlens.experiments.gallery.figures import effect_by_example
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
    title: ClassVar[str] = "The examples of the original post: best of three, and all"

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

    def headlines(self) -> list[Headline]:
        table = self.summary()
        wide = table.pivot(index="example", columns="role", values="share")
        more = int((wide["steered"] > wide["unsteered"]).sum())
        done = f"{len(self.not_run)} could not be run" if self.not_run else "all were run"
        tiles = [
            Headline("examples", str(len(wide)), done),
            Headline("effect more frequent than unsteered", f"{more} of {len(wide)}", "by share of completions alone"),
        ]
        clear = table[table["role"] != "random"].pivot(index="example", columns="role", values=["low", "high"])
        apart = clear[("low", "steered")] > clear[("high", "unsteered")]
        names = ", ".join(clear.index[apart])
        tiles.append(Headline("with intervals that do not overlap", f"{int(apart.sum())} of {len(wide)}", names))
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
