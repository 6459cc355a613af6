"""How few tokens find the best setting of a grid? The strategies of `search`, replayed on a grid that is sampled once.

    python scripts/search_study.py --store grid.sqlite --out search_study.json

On the embedded model, for several topics: the mean difference of the topic's sentences at every layer × strengths ×
placements, each setting sampled in full (kept in the store: the script resumes). Then every strategy is given the
grid's completions one rung at a time, for many seeds. Reported is the share of the grid's best setting (on topic AND
fluent, over all its completions) that the setting which the search would name has, against the share of the grid's
tokens that it has seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import steerlens as sl
from steerlens import demo
from steerlens.measures.damage import success
from steerlens.runs.search import room_at_once
from steerlens.runs.search_ledger import Ledger, Space
from steerlens.runs.search_sampling import completed
from steerlens.runs.search_space import candidates_of
from steerlens.runs.search_strategies import STRATEGIES, rungs_of, strategy_of
from steerlens.steering import Condition
from steerlens.steering.prompts import read_prompts

PROMPTS = [
    "I went up to my friend and said",
    "The weather today is",
    "We spent the whole evening talking about",
    "Last year my brother told me that",
]
STRENGTHS = [sl.norm_share(round(float(share), 3)) for share in np.geomspace(0.1, 2.5, 8)]
PLACEMENTS = ["all", "prompt"]
SHARES = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
ENOUGH = 0.95


def main() -> None:
    """Sample the grids, replay the strategies, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", nargs="+", default=list(demo.TOPICS))
    parser.add_argument("--n", type=int, default=12, help="samples per setting and prompt")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--store", type=Path, default=Path("search_study.sqlite"))
    parser.add_argument("--out", type=Path, default=Path("search_study.json"))
    parser.add_argument("--together", type=int, default=None, help="settings sampled together, at most")
    asked = parser.parse_args()
    model = sl.load_model("demo")
    grids = []
    for topic in asked.topics:
        grids.append(Grid(model, topic, n=asked.n, tokens=asked.tokens, store=asked.store))
        print(grids[-1], flush=True)
    told = []
    for name in asked.strategies:
        curves = [
            {"topic": grid.topic, "strategy": name, "seed": seed, "tokens": share, "quality": quality}
            for grid in grids
            for seed in range(asked.seeds)
            for share, quality in grid.replayed(name, seed, together=asked.together)
        ]
        told.append(summary(pd.DataFrame(curves)))
        print(told[-1].to_string(index=False), flush=True)
    asked.out.write_text(pd.concat(told).to_json(orient="records", indent=1), encoding="utf-8")


class Grid:
    """A topic's grid, sampled in full: hits and tokens by candidate, prompt and sample."""

    def __init__(self, model: sl.HookedModel, topic: str, *, n: int, tokens: int, store: Path) -> None:
        about, neutral = demo.topic_contrast(topic)
        vectors = sl.mean_difference(model, about, neutral, layers="all", token=slice(1, None))
        goal = sl.metrics.topic(topic)
        prompts = read_prompts(model, PROMPTS)
        found = candidates_of(
            model,
            vectors,
            prompts,
            layers="all",
            operations=("add",),
            placements=PLACEMENTS,  # type: ignore[arg-type]
            strengths=STRENGTHS,
            words=goal.marked,
        )
        frame = completed(
            model,
            prompts,
            [Condition(), *(one.condition for one in found.all)],
            ["unsteered", *["steered"] * len(found.all)],
            sampling=sl.Sampling(n=n, max_new_tokens=tokens),
            goal=goal,
            settings={"what": topic},
            store=store,
            batch_size=None,
        )
        frame["hit"] = success(frame, goal.column, "share")
        steered = frame[frame["role"] == "steered"]
        shape = (len(found.all), len(PROMPTS), n)
        self.topic, self.space = topic, found.space
        self.hits = steered["hit"].to_numpy().reshape(shape)
        self.tokens = steered["n_tokens"].to_numpy().reshape(shape)
        self.truth = self.hits.mean((1, 2))
        self.usual = float(frame.loc[frame["role"] == "unsteered", "hit"].mean())

    def __str__(self) -> str:
        looks = pd.DataFrame(self.space.cheap).rank().corrwith(pd.Series(self.truth).rank())
        order = " and ".join(f"{one:+.2f}" for one in looks)
        return (
            f"{self.topic}: {len(self.truth)} settings, {self.tokens.sum():,} tokens, best {self.truth.max():.0%}, "
            f"unsteered {self.usual:.0%}; rank correlation of the cheap looks with success {order}"
        )

    def replayed(self, name: str, seed: int, *, together: int | None = None) -> list[tuple[float, float]]:
        """The share of the tokens seen and the quality of the setting named then, after every batch."""
        rungs = rungs_of(name, self.hits.shape[2])
        ends = np.cumsum(rungs)
        ledger, strategy = Ledger(Space(**vars(self.space)), rungs), strategy_of(name, seed=seed)
        room = [together or room_at_once(len(self.truth))] * len(rungs)
        curve: list[tuple[float, float]] = []
        spent = 0
        while True:
            rung, chosen = strategy.ask(ledger, room)
            if not chosen:
                return curve
            for one in chosen:
                part = slice(ends[rung] - rungs[rung], ends[rung])
                hits = self.hits[one, :, part]
                ledger.take(one, float(hits.sum()), hits.size)
                spent += int(self.tokens[one, :, part].sum())
            best = ledger.best()
            assert best is not None
            curve.append((spent / self.tokens.sum(), self.truth[best] / self.truth.max()))


def summary(curves: pd.DataFrame) -> pd.DataFrame:
    """By topic (and all together) and strategy: median quality at shares of the tokens, and the share that suffices."""
    rows = []
    runs = curves.groupby(["topic", "strategy", "seed"], sort=False)
    found = []
    for (topic, strategy, _), run in runs:
        at = {f"at {share:.0%}": _at(run, share) for share in SHARES}
        below = run.loc[run["quality"] < ENOUGH, "tokens"]
        later = run.loc[run["tokens"] > (below.max() if len(below) else 0.0), "tokens"]
        first = run.loc[run["quality"] >= ENOUGH, "tokens"]
        found.append(
            {
                "topic": topic,
                "strategy": strategy,
                **at,
                "first at 95 %": first.min() if len(first) else 1.0,
                "stays at 95 %": later.min() if len(later) else 1.0,
            }
        )
    table = pd.DataFrame(found)
    for topic, some in [*table.groupby("topic", sort=False), ("all topics", table)]:
        for strategy, mine in some.groupby("strategy", sort=False):
            rows.append({"topic": topic, "strategy": strategy, **mine.drop(columns=["topic", "strategy"]).median()})
    return pd.DataFrame(rows).round(3)


def _at(run: pd.DataFrame, share: float) -> float:
    seen = run[run["tokens"] <= share]
    return float(seen["quality"].iloc[-1]) if len(seen) else 0.0


if __name__ == "__main__":
    main()
