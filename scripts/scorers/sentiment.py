"""The sentiment scorer: trained on IMDb's reviews and windows of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlens.experiments.shared.scorers import HashedNgramScorer, tokens_of
from steerlens.measures.statistics import wilson_interval

from . import cards
from .quality import accuracy
from .training import Examples, changed, fit, windows

SHORT = ((25, "about 32 tokens"), (50, "about 64 tokens"))
"""Words of the short held-out texts."""

FEATURES: dict[str, Any] = {"longest": 2, "pieces": (4, 5)}
SETTINGS: dict[str, Any] = {"epochs": 4, "rate": 0.01, "decay": 0.0005, "prior": 0.5}
WINDOWS = {"each": 6, "shortest": 12, "widest": 60}

_TRIALS: tuple[dict[str, Any], ...] = (
    {},
    {"longest": 1},
    {"longest": 3},
    {"pieces": ()},
    {"pieces": (3, 4, 5)},
    {"prior": 0.25},
    {"prior": 1.0},
    {"decay": 0.002},
    {"rate": 0.03},
    {"epochs": 8},
)


def imdb(data: Path, split: str) -> tuple[list[list[str]], NDArray[np.float64], NDArray[np.int64]]:
    """Tokens, labels (1 positive) and row numbers of the reviews of a split, each text once."""
    frame = pd.read_parquet(data / "imdb" / f"{split}.parquet").drop_duplicates("text")
    return (
        [tokens_of(text) for text in frame["text"]],
        (frame["label"] == "pos").to_numpy(float),
        frame.index.to_numpy(),
    )


def choose(data: Path) -> None:
    """Prints how good other settings are on a tenth of the training reviews, which they have not seen."""
    texts, labels, _ = imdb(data, "train")
    order = np.random.default_rng(0).permutation(len(texts))
    held, kept = order[: len(order) // 10], order[len(order) // 10 :]
    shorts = {words: [texts[i][:words] for i in held] for words, _ in SHORT}
    for change in _TRIALS:
        started = time.time()
        features, settings = changed(FEATURES, change), changed(SETTINGS, change)
        examples = Examples.of(*windows([texts[i] for i in kept], labels[kept], seed=0, **WINDOWS), **features)
        scorer = fit(examples, features, **settings)
        right = [accuracy(scorer, [texts[i] for i in held], labels[held]).mean()]
        right += [accuracy(scorer, shorts[words], labels[held]).mean() for words, _ in SHORT]
        print(change, [f"{share:.4f}" for share in right], f"{time.time() - started:.0f} s", flush=True)


def train(data: Path, out: Path) -> Path:
    """Trains the scorer and measures it; the path of its card, which lies beside it in `out`."""
    texts, labels, _ = imdb(data, "train")
    started = time.time()
    scorer = fit(Examples.of(*windows(texts, labels, seed=0, **WINDOWS), **FEATURES), FEATURES, **SETTINGS)
    seconds = time.time() - started
    scorer = HashedNgramScorer.load(scorer.save(out / "sentiment.npz"))
    facts = {
        "longest": scorer.longest,
        "pieces": " and ".join(map(str, scorer.pieces)),
        "buckets": f"{len(scorer.weights):,}",
        "kilobytes": f"{(out / 'sentiment.npz').stat().st_size / 1000:.0f}",
        "reviews": f"{len(texts):,}",
        **WINDOWS,
        "seconds": f"{seconds:.0f}",
        "settings": ", ".join(f"{key} {value}" for key, value in SETTINGS.items()),
        "table": "\n".join(_held_out(scorer, data)),
    }
    card = out / "sentiment.md"
    card.write_text(cards.SENTIMENT.format(**facts), encoding="utf-8")
    return card


def _held_out(scorer: HashedNgramScorer, data: Path) -> list[str]:
    """Rows of the card: accuracy on the test split, on whole reviews and on short pieces of them."""
    tests, truth, _ = imdb(data, "test")
    middle = np.random.default_rng(1)
    rows = [("whole reviews", tests)]
    for words, said in SHORT:
        rows.append((f"first {words} words ({said})", [tokens[:words] for tokens in tests]))
        starts = [int(middle.integers(0, max(len(tokens) - words, 0) + 1)) for tokens in tests]
        cut = [tokens[start : start + words] for tokens, start in zip(tests, starts, strict=True)]
        rows.append((f"any {words} words in a row", cut))
    table = []
    for said, texts in rows:
        hits = accuracy(scorer, texts, truth)
        interval = wilson_interval(int(hits.sum()), hits.size)
        table.append(f"| {said} | {hits.size:,} | {interval.mean:.1%} ({interval.low:.1%} to {interval.high:.1%}) |")
    return table
