"""The qualitative examples of the original post, those that failed included: the best of three, and all of them.

The post ("Steering GPT-2-XL by adding an activation vector", LessWrong, May 2023) shows for each example the best of
three completions, picked by people (its introduction: of thirty). A picked completion says little about the usual one,
so here stand, on one page: the best of the first three by a stated rule, all completions, and the share of completions
that show the effect at all, with intervals, unsteered and under a random vector of equal norm.

**The rule.** Each example names the words that stand for its effect. The best of three is the completion with most of
them (repeats counted), the earlier sample where two have as many; unsteered completions are picked by the same rule.

Settings of the post: temperature 1, top-p 0.3, frequency penalty 1, seed 0. Its polished notebook makes 3 completions
of 50 tokens, an earlier one up to 15 of 50 to 90. The default is 50 tokens, and 20 completions so that the shares say
something.

Layers are those of GPT-2-XL (48 layers); another model gets the layer at the same relative depth. Coefficients are the
post's as they are, unless `coeff_scale` says otherwise: on another model another size may be right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from tqdm.auto import tqdm

from steerlens.engine.generation import generate
from steerlens.errors import SteerlensError
from steerlens.experiments.gallery.examples import EXAMPLES, Addition, Example
from steerlens.experiments.gallery.figures import effect_by_example
from steerlens.experiments.shared.depth import PAPER_LAYERS, same_depth
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.result import Result
from steerlens.figures import theme
from steerlens.figures.completions import SideBySide, completions_side_by_side
from steerlens.measures.metrics import Metric, word_count
from steerlens.measures.statistics import wilson_interval
from steerlens.models import HookedModel, require_model, stamp
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Completions, Headline
from steerlens.steering import Condition, Injection, SteeringVector, actadd
from steerlens.steering.extraction.activations import resid_pre
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.random_vectors import Control, random_like

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUICK: dict[str, Any] = {"n": 10, "max_new_tokens": 40}

_REVISION = 1


@dataclass(frozen=True, eq=False)
class Gallery(Result):
    """Completions of the post's examples.

    Attributes:
        frame: one row per completion: number (in the post), example (name), verdict (of the post), prompt, addition,
            post_layers and layers (text: those of GPT-2-XL, and those steered here), coeff (text: as steered here),
            role ("unsteered", "steered", "random"), sample, completion, n_tokens, score (how many of the example's
            words), best (the one picked of the first `best_of`).
        not_run: example → why it could not be run on this model.
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
        """The rows of `frame` that the rule picked: one per example and role."""
        return self.frame[self.frame["best"]]

    def headlines(self) -> list[Headline]:
        table = self.summary()
        wide = table.pivot(index="example", columns="role", values="share")
        more = int((wide["steered"] > wide["unsteered"]).sum())
        tiles = [
            Headline(
                "examples", str(len(wide)), f"{len(self.not_run)} could not be run" if self.not_run else "all were run"
            ),
            Headline(
                "more often with the effect than unsteered",
                f"{more} of {len(wide)}",
                "by share of completions, noise included",
            ),
        ]
        clear = table[table["role"] != "random"].pivot(index="example", columns="role", values=["low", "high"])
        apart = clear[("low", "steered")] > clear[("high", "unsteered")]
        tiles.append(
            Headline(
                "… with intervals that do not overlap",
                f"{int(apart.sum())} of {len(wide)}",
                ", ".join(clear.index[apart]),
            )
        )
        if "random" in wide:
            beaten = int((wide["steered"] > wide["random"]).sum())
            tiles.append(Headline("more often than under a random vector", f"{beaten} of {len(wide)}", "of equal norm"))
        return tiles

    def figures(self) -> dict[str, go.Figure]:
        return {
            "How many completions hold any of the words that stand for the effect (95 % intervals).": (
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


def gallery(
    model: HookedModel,
    *,
    examples: Sequence[str | Example] | None = None,
    n: int = 20,
    best_of: int = 3,
    max_new_tokens: int = 50,
    temperature: float = 1.0,
    top_p: float = 0.3,
    frequency_penalty: float = 1.0,
    scale_layers: bool = True,
    coeff_scale: float = 1.0,
    control: Control = "random",
    seed: int = 0,
    store: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Gallery:
    """The post's examples on `model`: unsteered, steered, and under a random vector; best of three and all.

    Source and rule: the head of this file. An example whose vector is longer than its prompt (tokens differ from model
    to model) is listed as not run, with the reason.

    Args:
        examples: names (see `gallery_examples.EXAMPLES`) or `Example`s of your own; by default all.
        n: completions of each kind.
        best_of: the best is picked from the first so many.
        scale_layers: False takes the post's layer numbers as they are.
        coeff_scale: what all coefficients are multiplied by.
        control: "random", or None to leave the random vectors out.
        store: a file that keeps finished examples (a `Ledger`): an interrupted run goes on from there.
        max_new_tokens and the rest: see `generate`.

    Raises:
        SteerlensError: an unknown example, no example that can be run, layers out of range, n or best_of below 1.
    """
    require_model(model)
    chosen = _chosen(examples)
    for name, value in (("n", n), ("best_of", best_of)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SteerlensError(f"{name} must be a whole number of at least 1, got {value!r}")
    if control not in ("random", None):
        raise SteerlensError(f"control={control!r} is unknown; use 'random' or None")
    sampling: dict[str, Any] = {
        "n": n,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "frequency_penalty": frequency_penalty,
        "seed": seed,
    }
    facts = run_settings(model)
    tables, not_run = [], {}
    with (
        Ledger(store) as ledger,
        tqdm(
            total=len(chosen), unit="example", desc="gallery", disable=None if progress is None else not progress
        ) as bar,
    ):
        for example in chosen:
            layers = [same_depth(model, one.layer) if scale_layers else one.layer for one in example.additions]
            vectors = [
                coeff_scale * _vector(model, one, layer) for one, layer in zip(example.additions, layers, strict=True)
            ]
            why = _misfit(model, example, vectors)
            if why is not None:
                not_run[example.name] = why
                bar.update()
                continue
            depends = {
                "experiment": "gallery",
                "revision": _REVISION,
                "model": facts["model fingerprint"],
                "prompt": example.prompt,
                "additions": [asdict(one) for one in example.additions],
                "layers": layers,
                "coeff_scale": float(coeff_scale),
                "control": control,
                **sampling,
            }
            complete = partial(_complete, model, example, vectors, sampling, control, batch_size)
            rows = ledger.remember(depends, complete)
            tables.append(_table(example, layers, coeff_scale, pd.DataFrame(rows), best_of))
            bar.update()
    if not tables:
        raise SteerlensError(f"no example can be run on this model: {next(iter(not_run.values()))}")
    settings = {
        "examples": {
            one.name: {"words": list(one.words), "looked_for": one.looked_for, "note": one.note} for one in chosen
        },
        "best_of": best_of,
        "layers": f"scaled by depth from {PAPER_LAYERS}" if scale_layers else "as in the post",
        "coeff_scale": float(coeff_scale),
        "control": control,
        **sampling,
        **facts,
    }
    return Gallery(pd.concat(tables, ignore_index=True), settings, not_run)


def _chosen(examples: Sequence[str | Example] | None) -> list[Example]:
    if examples is None:
        return list(EXAMPLES)
    known = {one.name: one for one in EXAMPLES}
    found = []
    for one in [examples] if isinstance(examples, str) else examples:
        if isinstance(one, str) and one not in known:
            raise SteerlensError(f"no example is called {one!r}; there are {', '.join(known)}")
        found.append(known[one] if isinstance(one, str) else one)
    if not found:
        raise SteerlensError("examples is empty; give at least one name, or None for all")
    if len({one.name for one in found}) < len(found):
        raise SteerlensError("two examples have one name; give each its own")
    return found


@torch.no_grad()
def _vector(model: HookedModel, addition: Addition, layer: int) -> SteeringVector:
    if addition.negative is not None:
        return addition.coeff * actadd(model, addition.positive, addition.negative, layer=layer)
    if not 0 <= layer < model.cfg.n_layers:
        raise SteerlensError(f"layer {layer} is out of range; use 0 to {model.cfg.n_layers - 1}")
    ids = torch.tensor([prompt_ids(model, addition.positive)], device=model.cfg.device)
    values = resid_pre(model, ids, [layer])[layer][0]
    source = {"method": "activations", "prompt": addition.positive, "tokens": ids[0].tolist()}
    return addition.coeff * SteeringVector(values, layer, stamp(model), label=addition.positive, source=source)


def _misfit(model: HookedModel, example: Example, vectors: Sequence[SteeringVector]) -> str | None:
    span, length = max(vector.n_positions for vector in vectors), len(prompt_ids(model, example.prompt))
    if span <= length:
        return None
    return f"its vector spans {span} positions, but the prompt has {length} tokens"


def _complete(
    model: HookedModel,
    example: Example,
    vectors: Sequence[SteeringVector],
    sampling: dict[str, Any],
    control: Control,
    batch_size: int | None,
) -> list[dict[str, Any]]:
    conditions = [Condition(), Condition(tuple(Injection(vector) for vector in vectors))]
    if control == "random":
        # Two vectors at one layer must not be given one direction.
        others = [random_like(vector, seed=sampling["seed"] + 1000 * i) for i, vector in enumerate(vectors)]
        conditions.append(Condition(tuple(Injection(vector) for vector in others)))
    frame = generate(model, example.prompt, list(conditions), **sampling, batch_size=batch_size, progress=False)
    frame["role"] = frame["condition"].map({0: "unsteered", 1: "steered", 2: "random"})
    return frame[["role", "sample", "completion", "n_tokens"]].to_dict("records")


def _table(
    example: Example, layers: Sequence[int], coeff_scale: float, rows: pd.DataFrame, best_of: int
) -> pd.DataFrame:
    score = word_count(*example.words, literal=True)(rows["completion"]).astype(int)
    first = pd.Series(score)[(rows["sample"] < best_of).to_numpy()]
    picked = [group.idxmax() for _, group in first.groupby(rows.loc[first.index, "role"])]  # the first of equals
    columns = {
        "number": example.number,
        "example": example.name,
        "verdict": example.verdict,
        "prompt": example.prompt,
        "addition": " + ".join(map(str, example.additions)),
        "post_layers": ", ".join(str(one.layer) for one in example.additions),
        "layers": ", ".join(map(str, layers)),
        "coeff": ", ".join(f"{coeff_scale * one.coeff:g}" for one in example.additions),
    }
    table = rows.assign(score=score, best=rows.index.isin(picked))
    for position, (column, value) in enumerate(columns.items()):
        table.insert(position, column, value)
    return table


def _layers_text(facts: pd.Series) -> str:
    if facts["layers"] == facts["post_layers"]:
        return f"layer {facts['layers']}, as in the post"
    return f"layer {facts['layers']} (the post: {facts['post_layers']} of {PAPER_LAYERS})"


def _shown(summary: pd.DataFrame) -> pd.DataFrame:
    """A table for people: one line per example."""
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
