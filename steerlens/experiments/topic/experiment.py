"""`topic`: how often do steered completions talk about the topic, by layer? (ActAdd, experiment 3 of version 1)

The paper (Turner et al., arXiv 2308.10248) steers GPT-2-XL with `" weddings"` − `" "`, coefficient 1, at every layer,
and takes 200 completions of 40 tokens of *I went up to my friend and said* (temperature 1, top-p 0.3, frequency penalty
1, seed 0) from each and from the unsteered model. Two quantities are plotted against the layer: the mean count of
wedding-related words per completion, and the share of completions with any of them. The words are wedding, weddings,
wed, marry, married, marriage, bride, groom, honeymoon. According to the text, the effect is present at the very first
layer and largest at layer 6, where over 90 % of completions are about weddings, against about 2 % unsteered.

What differs here, or is not known: `steerlens.experiments.topic.paper.DIFFERENCES`, which the page shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

import pandas as pd

from steerlens.engine.sampling_settings import Sampling, SamplingOptions, chosen_sampling, shows_sampling_options
from steerlens.errors import SteerlensError
from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import beside
from steerlens.experiments.shared.result import Result
from steerlens.experiments.topic import paper
from steerlens.experiments.topic.answering import answered
from steerlens.experiments.topic.figures import topics_by_layer
from steerlens.figures import layer_sweep
from steerlens.measures import metrics
from steerlens.measures.summaries import interval, number
from steerlens.models import HookedModel
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Completions, Headline
from steerlens.runs.sweep import sweep
from steerlens.runs.sweep_page import best_beside_unsteered
from steerlens.runs.swept import Sweep
from steerlens.steering import Placement, PromptPair
from steerlens.steering.random_vectors import Control

if TYPE_CHECKING:
    import plotly.graph_objects as go

SAMPLING = Sampling(n=200)
"""The paper's: 200 completions of 40 tokens, temperature 1, top-p 0.3, frequency penalty 1, seed 0."""

QUICK: dict[str, Any] = {"sampling": replace(SAMPLING, n=60), "coeffs": (1.0, 4.0)}

SHARE, COUNT = "any related word", "related words"
"""The two metrics: share of completions with any word of the list, and mean number of such words per completion."""


_BEST_COLUMNS = {
    "steered": ["share", "low", "high"],
    "unsteered": ["unsteered", "unsteered_low", "unsteered_high"],
    "random vector": ["random", "random_low", "random_high"],
}


@dataclass(frozen=True, eq=False)
class Topic(Result):
    """Related words by layer.

    Attributes:
        frame: one row per topic, condition and metric: topic, then the columns of `Sweep.summary`. `metric` is
            "any related word" (kind "share") or "related words" (kind "mean").
        sweeps: by topic, with all completions in `.frame`.
    """

    name: ClassVar[str] = "topic"
    title: ClassVar[str] = "Does a steering vector make the model talk about a topic, and at which layer?"
    differences: ClassVar[tuple[str, ...]] = paper.DIFFERENCES

    sweeps: dict[str, Sweep] = field(default_factory=dict)

    def best(self) -> pd.DataFrame:
        """The condition with the largest share, selected after the fact, with its controls; one row per topic.

        Columns: topic, layer, coeff, share, low, high, words (mean per completion), unsteered, unsteered_low,
        unsteered_high, random, random_low, random_high (NaN without controls), n.
        """
        rows = []
        for topic, swept in self.sweeps.items():
            best, base = swept.best(SHARE), swept.baseline(SHARE)
            same = swept.summary.query("layer == @best.layer and coeff == @best.coeff")
            words = same[(same["role"] == "steered") & (same["metric"] == COUNT)].iloc[0]
            control = same[(same["role"] == "random") & (same["metric"] == SHARE)]
            row = {
                "topic": topic,
                "layer": int(best["layer"]),
                "coeff": best["coeff"],
                "share": best["mean"],
                "low": best["low"],
                "high": best["high"],
                "words": words["mean"],
                "unsteered": base["mean"],
                "unsteered_low": base["low"],
                "unsteered_high": base["high"],
            }
            for column, source in (("random", "mean"), ("random_low", "low"), ("random_high", "high")):
                row[column] = control.iloc[0][source] if len(control) else float("nan")
            rows.append(row | {"n": int(best["n"])})
        return pd.DataFrame(rows)

    def answer(self) -> list[str]:
        found = [answered(name, swept, SHARE) for name, swept in self.sweeps.items()]
        # Of several topics, first each in short.
        return [said[0] for said in found] if len(found) > 1 else found[0]

    def beside_paper(self) -> pd.DataFrame:
        if paper.TOPIC not in self.sweeps:
            return pd.DataFrame()
        swept = self.sweeps[paper.TOPIC]
        best, base = swept.best(SHARE), swept.baseline(SHARE)
        tried = self.frame.loc[self.frame["role"] == "steered", "layer"].nunique()
        where = f"{best['layer']} (of {tried} tried), coefficient {best['coeff']:g}"
        return beside(
            [
                (paper.BEST, wording.share(best["mean"], best["low"], best["high"])),
                (paper.UNSTEERED, wording.share(base["mean"], base["low"], base["high"])),
                (paper.LAYER, where),
            ]
        )

    def headlines(self) -> list[Headline]:
        table = self.best()
        if len(table) > 1:
            return [
                Headline(
                    f"{row.topic}, best of all conditions",
                    f"{row.share:.1%}",
                    f"{row.low:.1%} to {row.high:.1%}; layer {row.layer}, coefficient {row.coeff:g}; "
                    f"unsteered {row.unsteered:.1%}",
                )
                for row in table.itertuples()
            ]
        name, swept = next(iter(self.sweeps.items()))
        best, base, row = swept.best(SHARE), swept.baseline(SHARE), table.iloc[0]
        at = f"layer {best['layer']}, coefficient {best['coeff']:g}: best of all conditions"
        where = f"{interval(best)}; unsteered {number(base)}; {at}"
        tiles = [
            Headline(f"{name}: completions with a related word", number(best), where),
            Headline("unsteered", number(base), interval(base)),
        ]
        if row["random"] == row["random"]:
            limits = f"{row['random_low']:.1%} to {row['random_high']:.1%}"
            tiles.append(Headline("random vector of equal norm", f"{row['random']:.1%}", limits))
        return tiles

    def figures(self) -> dict[str, go.Figure]:
        drawn = {
            f"{topic}: share of completions with a related word, and related words per completion, by layer.": (
                layer_sweep(swept.summary, title=f"{topic}: {swept.settings['what']}")
            )
            for topic, swept in self.sweeps.items()
        }
        if len(self.sweeps) == 1:
            return drawn
        shares = self.frame[(self.frame["metric"] == SHARE) & (self.frame["role"] == "steered")]
        strongest = shares[shares["coeff"] == shares["coeff"].max()]
        (first, figure), *others = drawn.items()
        overview = "Each topic steered with its own vector: completions with a related word (%)."
        return {first: figure, overview: topics_by_layer(strongest), **dict(others)}

    def tables(self) -> dict[str, pd.DataFrame]:
        order = ["topic", "role", "layer", "coeff", "metric", "mean", "low", "high", "n"]
        best = self.best()
        shown = best[["topic", "layer", "coeff"]].copy()
        for name, columns in _BEST_COLUMNS.items():
            shown[name] = [
                "–" if share != share else f"{share:.1%} ({low:.1%} to {high:.1%})"
                for share, low, high in best[columns].to_numpy()
            ]
        shown["words per completion"], shown["n"] = best["words"], best["n"]
        return {
            "The best condition of each topic, selected after the fact and so biased upwards": shown,
            "All conditions": self.frame[order],
        }

    def completions_shown(self) -> list[Completions]:
        return [
            Completions(
                best_beside_unsteered(swept.frame, swept.summary, swept.metrics[0]),
                heading=topic if len(self.sweeps) > 1 else "",
            )
            for topic, swept in self.sweeps.items()
        ]


@shows_sampling_options(SAMPLING)
def topic(
    model: HookedModel,
    *,
    topics: str | Sequence[str] | Mapping[str, PromptPair] = ("weddings",),
    prompts: str | Sequence[str] = "I went up to my friend and said",
    layers: Sequence[int] | Literal["all"] = "all",
    coeffs: Sequence[float] | float = (1.0,),
    placement: Placement | None = None,
    control: Control = "random",
    sampling: Sampling | None = None,
    store: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[SamplingOptions],
) -> Topic:
    """Related words in completions for every layer × coefficient, and unsteered: figures 3 and 4 of the paper (v1).

    Source: Turner et al., arXiv 2308.10248; see the head of this file for what it says and leaves open. The defaults
    are the paper's. (Coefficient 1 does little to a small model, so `QUICK` adds 4.)

    Args:
        topics: names of word lists of `metrics.TOPICS`, steered by `" name"` − `" "`; or {name: PromptPair}.
        prompts: texts to continue.
        control: "random" puts a random vector of equal norm beside each condition; None leaves it out.
        sampling: how many completions and how they are drawn; by default `SAMPLING`.
        n, max_new_tokens, temperature, top_k, top_p, frequency_penalty, seed, stop_at_end, stop: fields of `Sampling`
            by name, in place of those of `sampling`.
        store: a file that keeps finished conditions (see `sweep`), from which an interrupted run resumes. Topics share
            their unsteered completions in it.
        layers, coeffs, placement, batch_size, progress: see `sweep`.

    Raises:
        SteerlensError: an unknown topic, and whatever `sweep` raises.
    """
    sampling = chosen_sampling(sampling, options, default=SAMPLING)
    pairs = _pairs(topics)
    measured = {name: (metrics.topic(name, name=SHARE), _count(name)) for name in pairs}  # all names checked first
    sweeps = {}
    for name, pair in pairs.items():
        sweeps[name] = sweep(
            model,
            pair,
            prompts,
            layers=layers,
            coeffs=coeffs,
            placement=placement,
            metrics=measured[name],
            sampling=sampling,
            control=control,
            batch_size=batch_size,
            progress=progress,
            store=store,
        )
    tables = [swept.summary.assign(topic=name) for name, swept in sweeps.items()]
    frame = pd.concat(tables, ignore_index=True)
    frame.insert(0, "topic", frame.pop("topic"))
    first = next(iter(sweeps.values()))
    common = {key: value for key, value in first.settings.items() if key not in ("what", "pad", *run_settings(model))}
    settings = {
        "topics": {name: str(pair) for name, pair in pairs.items()},
        "words": {name: list(metrics.TOPICS[name]) for name in pairs},
        "pad": {name: pair.pad for name, pair in pairs.items()},
        **common,
        **run_settings(model),
    }
    return Topic(frame, settings, sweeps)


def _count(name: str) -> metrics.Metric:
    return metrics.word_count(*metrics.TOPICS[name], name=COUNT, literal=True)


def _pairs(topics: str | Sequence[str] | Mapping[str, PromptPair]) -> dict[str, PromptPair]:
    if isinstance(topics, Mapping):
        pairs = dict(topics)
        for name, pair in pairs.items():
            if not isinstance(pair, PromptPair):
                raise SteerlensError(f"topic {name!r} comes with {type(pair).__name__}; give a PromptPair")
    else:
        names = [topics] if isinstance(topics, str) else list(topics)
        pairs = {name: PromptPair(f" {name}", " ") for name in names}
    if not pairs:
        raise SteerlensError("topics is empty; give at least one, such as 'weddings'")
    return pairs
