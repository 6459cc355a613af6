"""Every method × site × operation on one model: effect, damage and the time it takes, as a table and a CSV file.

    python scripts/methods_table.py --model demo
    python scripts/methods_table.py --model smollm2
    python scripts/methods_table.py --model smollm2 --n 10 --tokens 24 --steps 40        # hours on one core
    python scripts/methods_table.py --model demo --table                                 # what there is so far

For six topics and for sentiment. Vectors are made of the sentences and openings that ship with the package and tried on
other prompts, all with the same length: `--share` of the median activation's at their site (an edit of `reft` moves
activations as far, and is also tried as it was trained). Effect is the share of completions with a word of the topic,
or that a classifier calls positive after negative openings; damage the surprise of their tokens under the unsteered
model above that of its own completions (nats), and the share that is fluent. Rows are written as soon as they are
measured; run the same command again to go on. By default as much is tried as takes half an hour on one core, which for
SmolLM2 is little.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import steerlens as sl
from steerlens import demo
from steerlens.experiments.shared.scorers import shipped_scorer
from steerlens.measures.damage import MARGIN
from steerlens.models import SITES, Site
from steerlens.steering import random_like
from steerlens.steering.extraction.activations import activations
from steerlens.steering.tokens import token_ids

PROMPTS = ("I went up to my friend and said", "The next morning she", "When I got home I found", "He told me that")
OPERATIONS = ("add", "add_keep_norm", "clamp", "affine")
TRAINED = ("resid_pre", "mlp_out")  # sites of what takes long to make
# Completions per prompt and condition, their tokens, and steps of training.
SIZES = {"demo": (10, 24, 40), "smollm2": (2, 16, 10)}
COLUMNS = ("task", "method", "site", "operation", "layer", "effect", "surprise", "fluent", "seconds", "n")
FEW = 24  # sentiment openings of each class to learn from


@dataclass(frozen=True, eq=False)
class Task:
    """What is steered to: texts to learn from, a pair for ActAdd, prompts to try it on, and how it is measured."""

    name: str
    contrast: sl.ContrastSet
    pair: tuple[str, str]
    prompts: Sequence[str]
    effect: Callable[[Sequence[str]], Any]


def tasks(topics: Sequence[str]) -> Iterator[Task]:
    """The topics asked for, and sentiment if it is among them."""
    for topic in topics:
        if topic != "sentiment":
            positive, negative = demo.topic_contrast(topic)
            contrast = sl.ContrastSet(tuple(positive), tuple(negative), name=topic)
            yield Task(topic, contrast, (f" {topic}", " "), PROMPTS, sl.metrics.topic(topic))
            continue
        lines = (demo.DATA / "sentiment_openings.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        good, bad = ([row["text"] for row in rows if row["label"] == label] for label in ("positive", "negative"))
        scorer = shipped_scorer("sentiment")
        contrast = sl.ContrastSet(tuple(good[:FEW]), tuple(bad[:FEW]), name="sentiment")
        yield Task(topic, contrast, ("Love", "Hate"), bad[FEW : FEW + 4], partial(found_positive, scorer))


def found_positive(scorer: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> Any:
    """Which of the texts the scorer holds for positive."""
    return scorer(texts) > 0.5


def vectors(model: Any, task: Task, layer: int, sites: Sequence[Site], steps: int) -> Iterator[tuple[str, Site, Any]]:
    """Method, site, and what makes the vector (or injection)."""
    contrast, seen = task.contrast, slice(1, None)
    own: dict[str, Any] = {"layer": layer, "token": seen}
    for site in sites:
        yield (
            "random",
            site,
            lambda site=site: random_like(sl.mean_difference(model, contrast, site=site, **own), seed=0),
        )
        yield "actadd", site, lambda site=site: sl.actadd(model, *task.pair, layer=layer, site=site)
        yield "mean_difference", site, lambda site=site: sl.mean_difference(model, contrast, site=site, **own)
        yield "pca", site, lambda site=site: sl.pca(model, contrast, pairing="random", site=site, **own)
        for kind in ("logistic", "lda"):
            yield (
                f"probe, {kind}",
                site,
                lambda site=site, kind=kind: sl.probe(model, contrast, kind=kind, held_out=0.4, site=site, **own),
            )
        if site == "z":
            options: dict[str, Any] = {"kind": "means", "held_out": 0.4, "token": seen}
            yield (
                "top heads (ITI)",
                site,
                lambda options=options: sl.probe(model, contrast, layer=layer, site="z", top_heads=2, **options),
            )
        for method in (sl.trained, sl.reft) if site in TRAINED else ():
            yield (
                method.__name__,
                site,
                lambda site=site, method=method: method(
                    model, contrast.positive, layer=layer, site=site, steps=steps, held_out=0.4, progress=False
                ),
            )


def injections(
    model: Any, task: Task, method: str, vector: sl.SteeringVector | sl.Injection, length: float
) -> dict[str, sl.Injection]:
    """The vector with each operation, scaled so that its longest position is `length` long.

    An edit of `reft`: as it was trained, and so that it moves activations of the prompts by `length`.
    """
    if isinstance(vector, sl.Injection):
        assert vector.reads is not None
        x = activations_of_prompts(model, vector.vector.layer, vector.vector.site)
        moved = (x @ vector.reads.values[0] + (vector.value or 0.0)).abs().median()
        return {"reft": vector * (length / float(moved)), "reft, as trained": vector}
    scaled = vector * (length / float(vector.norms.max()))
    if method in ("actadd", "random"):
        return {"add": sl.Injection(scaled, "all" if method == "random" else "front")}
    ids = [token_ids(model, text) for text in task.contrast.negative]
    rows = [
        activations(model, torch.tensor([row]), [vector.layer], site=vector.site)[vector.layer][0, 1:] for row in ids
    ]
    mean = dataclasses.replace(vector, values=torch.cat(rows).mean(0, keepdim=True), coeff=1.0, label="mean")
    found = {
        one: sl.Injection(scaled, "all", one, mean=mean if one == "affine" else None)  # type: ignore[arg-type]
        for one in OPERATIONS
    }
    if task.name == "sentiment":  # (a topic that is not there cannot be removed)
        found["ablate"] = sl.Injection(scaled, "all", "ablate")
    return found


def usual_length(model: Any, layer: int, site: Site) -> float:
    """The median norm of activations at a site over the prompts."""
    return float(activations_of_prompts(model, layer, site).norm(dim=-1).median())


def activations_of_prompts(model: Any, layer: int, site: Site) -> torch.Tensor:
    """The activations at a site, without BOS and the first word, of all prompts: [positions width]."""
    rows = [torch.tensor([token_ids(model, prompt)]) for prompt in PROMPTS]
    return torch.cat([activations(model, row, [layer], site=site)[layer][0, 2:] for row in rows])


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", choices=["demo", "smollm2"])
    parser.add_argument("--n", type=int, help="completions per prompt and condition")
    parser.add_argument("--tokens", type=int, help="of each")
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--topics", nargs="+", default=[*demo.TOPICS, "sentiment"])
    parser.add_argument("--sites", nargs="+", default=list(SITES))
    parser.add_argument("--layer", type=int, help="by default the middle one")
    parser.add_argument("--share", type=float, default=0.5, help="length of vectors beside that of activations")
    parser.add_argument("--out", type=Path, help="by default methods-MODEL.csv")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what there is")
    asked = parser.parse_args()
    out = asked.out or Path(f"methods-{asked.model}.csv")
    if not asked.table:
        measure(asked, out)
    table(out)


def measure(asked: argparse.Namespace, out: Path) -> None:
    """Write the rows that are missing."""
    n, tokens, steps = (
        given or usual for given, usual in zip((asked.n, asked.tokens, asked.steps), SIZES[asked.model], strict=True)
    )
    model = sl.load_model(asked.model)
    layer = model.cfg.n_layers // 2 if asked.layer is None else asked.layer
    done = list(csv.DictReader(out.open(encoding="utf-8"))) if out.exists() else []
    known = {(row["task"], row["method"], row["site"]) for row in done}
    sampling = sl.Sampling(n=n, max_new_tokens=tokens, seed=0)
    lengths = {site: asked.share * usual_length(model, layer, site) for site in asked.sites}
    every, bases = list(tasks(asked.topics)), {}
    # Site by site, so that what there is after an interruption compares methods on all tasks.
    for site, task in itertools.product(asked.sites, every):
        missing = [one for one in vectors(model, task, layer, [site], steps) if (task.name, *one[:2]) not in known]
        if not missing:
            continue
        if task.name not in bases:
            bases[task.name] = sl.generate(model, list(task.prompts), sampling=sampling, surprise=True, progress=False)
        base = bases[task.name]
        limit = base.groupby("prompt").surprise.mean() + MARGIN
        if (task.name, "unsteered", "") not in known:
            write(out, [measured(task, base, limit, ("unsteered", "", "", ""), 0.0)])
            known.add((task.name, "unsteered", ""))
        for method, _, make in missing:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of vectors that are long beside the stream: all are scaled
                begun = time.perf_counter()
                try:
                    vector = make()
                except sl.SteerlensError as error:
                    print(f"{task.name}, {method}, {site}: {error}")
                    continue
                seconds = time.perf_counter() - begun
                made = injections(model, task, method, vector, lengths[site])
                frame = sl.generate(
                    model, list(task.prompts), list(made.values()), sampling=sampling, surprise=True, progress=False
                )
            write(
                out,
                [
                    measured(task, frame[frame.condition == number], limit, (method, site, operation, layer), seconds)
                    for number, operation in enumerate(made)
                ],
            )


def measured(task: Task, frame: Any, limit: Any, place: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """A row of the table."""
    fluent = frame.surprise <= frame.prompt.map(limit)
    method, site, operation, layer = place
    values = (
        task.name, method, site, operation, layer,
        f"{float(sum(task.effect(list(frame.completion)))) / len(frame):.3f}",
        f"{frame.surprise.mean():.3f}", f"{fluent.mean():.3f}", f"{seconds:.2f}", len(frame),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to the file."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def table(path: Path) -> None:
    """Print the means over the topics, and sentiment, of each method, site and operation."""
    import pandas as pd

    frame = pd.read_csv(path, keep_default_na=False)
    base = frame[frame.method == "unsteered"].set_index("task").surprise
    frame["damage"] = frame.surprise - frame.task.map(base)
    place = ["method", "site", "operation"]
    columns: dict[Any, Any] = {}
    for name, rows in (("topics", frame[frame.task != "sentiment"]), ("sentiment", frame[frame.task == "sentiment"])):
        means = rows.groupby(place, sort=False)[["effect", "fluent", "damage"]].mean()
        columns |= {(name, column): means[column].map("{:.2f}".format) for column in means}
    columns["to make", "seconds"] = frame.groupby(place, sort=False).seconds.mean().map("{:.1f}".format)
    columns["each", "n"] = frame.groupby(place, sort=False).n.sum()
    print(pd.DataFrame(columns).reindex(frame.set_index(place).index.unique()).to_string(na_rep="", sparsify=False))


if __name__ == "__main__":
    main()
