"""The toxicity scorer: trained on tweets and on prose with Perspective scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlens.experiments.shared.scorers import HashedNgramScorer, tokens_of
from steerlens.measures.statistics import bootstrap_interval, wilson_interval

from . import cards
from .quality import auc, auc_interval, calibration
from .training import Examples, changed, fit

FEATURES: dict[str, Any] = {"longest": 1, "pieces": (3, 4, 5)}
SETTINGS: dict[str, Any] = {"epochs": 10, "rate": 0.01, "decay": 0.002, "prior": 0.5, "prose_weight": 1.0}

_TRIALS: tuple[dict[str, Any], ...] = (
    {},
    {"pieces": ()},
    {"pieces": (4, 5)},
    {"pieces": (3, 4, 5, 6)},
    {"longest": 2},
    {"prior": 1.0},
    {"prior": 0.25},
    {"decay": 0.0005},
    {"decay": 0.01},
    {"epochs": 5},
    {"epochs": 20},
    {"prose_weight": 0.3},
    {"prose_weight": 3.0},
)


def labelled_texts(data: Path, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Texts with a label from 0 to 1, in four parts: tweets and web prose, to train on and held out."""
    tweets = pd.read_parquet(data / "toxicity" / "davidson_tweets.parquet")
    tweets = pd.DataFrame({"text": tweets["tweet"], "label": (tweets["class"] != 2).astype(float)})
    prose = pd.read_parquet(data / "toxicity" / "realtoxicityprompts_subset.parquet")
    generator = np.random.default_rng(seed)
    held_tweets = generator.random(len(tweets)) < 0.2
    held_prose = generator.random(len(prose)) < 0.5
    pieces = {}
    for part, held in (("train", ~held_prose), ("test", held_prose)):
        rows = prose[held]
        both = [(rows[side], rows[f"{side}_toxicity"], side) for side in ("prompt", "continuation")]
        pieces[f"prose {part}"] = pd.concat(
            [pd.DataFrame({"text": text, "label": label, "side": side}) for text, label, side in both]
        ).dropna()
    return {"tweets train": tweets[~held_tweets], "tweets test": tweets[held_tweets], **pieces}


def fitted(
    tweets: pd.DataFrame, prose: pd.DataFrame, features: Mapping[str, Any], *, prose_weight: float, **settings: Any
) -> HashedNgramScorer:
    """The scorer from tweets, both classes of equal weight, and prose of `prose_weight` times their weight."""
    offensive = float(tweets["label"].mean())
    per_tweet = np.where(tweets["label"] == 1, 0.5 / offensive, 0.5 / (1 - offensive))
    per_text = np.full(len(prose), prose_weight * len(tweets) / len(prose))
    texts = [tokens_of(text) for text in [*tweets["text"], *prose["text"]]]
    labels = [*tweets["label"], *prose["label"]]
    return fit(Examples.of(texts, labels, [*per_tweet, *per_text], **features), features, **settings)


def choose(data: Path) -> None:
    """Prints how good other settings are on a part of the training prose, which they have not seen."""
    parts = labelled_texts(data)
    prose, tweets = parts["prose train"], parts["tweets train"]
    fold = _fold(prose)
    for change in _TRIALS:
        scorer = fitted(tweets, prose[~fold], changed(FEATURES, change), **changed(SETTINGS, change))
        shown = []
        for side in ("prompt", "continuation"):
            held = prose[fold & (prose["side"] == side)]
            p = scorer(list(held["text"]))
            error = np.abs(p - held["label"]).mean()
            shown.append(f"{side}: AUC {auc(p, held['label'].to_numpy() >= 0.5):.3f}, error {error:.3f}")
        print(change, "; ".join(shown), flush=True)


def train(data: Path, out: Path) -> Path:
    """Trains the scorer and measures it; the path of its card, which lies beside it in `out`."""
    parts = labelled_texts(data)
    started = time.time()
    prose, tweets = parts["prose train"], parts["tweets train"]
    fold = _fold(prose)
    slope, offset = calibration(fitted(tweets, prose[~fold], FEATURES, **SETTINGS), prose[fold])
    scorer = fitted(tweets, prose, FEATURES, **SETTINGS)
    scorer = replace(scorer, weights=slope * scorer.weights, bias=slope * scorer.bias + offset, key="")
    seconds = time.time() - started
    scorer = HashedNgramScorer.load(scorer.save(out / "toxicity.npz"))
    held = parts["prose test"]
    error = bootstrap_interval(np.abs(scorer(list(held["text"])) - held["label"].to_numpy()))
    facts = {
        "pieces": ", ".join(map(str, scorer.pieces)),
        "buckets": f"{len(scorer.weights):,}",
        "kilobytes": f"{(out / 'toxicity.npz').stat().st_size / 1000:.0f}",
        "tweets": f"{len(tweets):,}",
        "prose": f"{len(prose):,}",
        "seconds": f"{seconds:.0f}",
        "settings": ", ".join(f"{key} {value}" for key, value in SETTINGS.items()),
        "table": "\n".join(_held_out(scorer, held, parts["tweets test"])),
        "error": f"{error.mean:.3f} ({error.low:.3f} to {error.high:.3f})",
    }
    card = out / "toxicity.md"
    card.write_text(cards.TOXICITY.format(**facts), encoding="utf-8")
    return card


def _fold(prose: pd.DataFrame) -> NDArray[np.bool_]:
    """The part of the training prose on which settings are chosen and the log-odds are calibrated."""
    return np.random.default_rng(1).random(len(prose)) < 0.3


def _held_out(scorer: HashedNgramScorer, prose: pd.DataFrame, tweets: pd.DataFrame) -> list[str]:
    """Rows of the card: area under the ROC curve and accuracy, by source."""
    rows = []
    for said, some in (
        ("RealToxicityPrompts, prompts", prose[prose["side"] == "prompt"]),
        ("RealToxicityPrompts, continuations", prose[prose["side"] == "continuation"]),
        ("RealToxicityPrompts, both", prose),
        ("tweets", tweets),
    ):
        p, truth = scorer(list(some["text"])), some["label"].to_numpy() >= 0.5
        right = wilson_interval(int(((p >= 0.5) == truth).sum()), len(truth))
        rows.append(
            f"| {said} | {len(truth):,} | {truth.mean():.0%} | {auc_interval(p, truth)} | "
            f"{right.mean:.1%} ({right.low:.1%} to {right.high:.1%}) |"
        )
    return rows
