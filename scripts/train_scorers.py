"""Trains the two scorers that ship with the package: linear models on hashed n-grams, and their cards.

    python scripts/train_scorers.py sentiment --data ../shared/data
    python scripts/train_scorers.py toxicity --data ../shared/data

Settings were chosen on a tenth of the training data (`--choose`), never on the test data, which is looked at once, for
the card. Continuations are short, so the sentiment scorer learns from short windows of the reviews beside whole ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from steerlens.experiments.shared.scorers import HashedNgramScorer, buckets_of, tokens_of
from steerlens.measures.statistics import bootstrap_interval, wilson_interval

OUT = Path(__file__).resolve().parents[1] / "steerlens" / "demo" / "scorers"
SIZE = 2**18
SHORT = ((25, "about 32 tokens"), (50, "about 64 tokens"))
"""Words of the short held-out texts."""


@dataclass(frozen=True)
class Examples:
    """Bags of buckets, one after the other: `flat[starts[i]:starts[i+1]]` is example i, with its label and weight."""

    flat: NDArray[np.int64]
    starts: NDArray[np.int64]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]

    @staticmethod
    def of(
        texts: Sequence[Sequence[str]],
        labels: Sequence[float],
        weights: Sequence[float],
        *,
        longest: int,
        pieces: Sequence[int] = (),
    ) -> Examples:
        """From token lists."""
        bags = [buckets_of(tokens, longest=longest, pieces=pieces, size=SIZE) for tokens in texts]
        starts = np.cumsum([0, *map(len, bags)])
        flat = np.concatenate(bags) if bags else np.zeros(0, dtype=np.int64)
        return Examples(flat, starts, np.asarray(labels, dtype=np.float32), np.asarray(weights, dtype=np.float32))


def windows(
    texts: Sequence[Sequence[str]], labels: Iterable[float], *, each: int, shortest: int, widest: int, seed: int
) -> tuple[list[Sequence[str]], list[float], list[float]]:
    """Every text whole, and `each` windows of it of `shortest` to `widest` words; their labels and weights."""
    generator = np.random.default_rng(seed)
    found: list[Sequence[str]] = []
    known: list[float] = []
    weights: list[float] = []
    for tokens, label in zip(texts, labels, strict=True):
        found.append(tokens)
        known.append(label)
        weights.append(1.0)
        for _ in range(each):
            width = int(generator.integers(shortest, widest + 1))
            start = int(generator.integers(0, max(len(tokens) - width, 0) + 1))
            found.append(tokens[start : start + width])
            known.append(label)
            weights.append(1.0)
    return found, known, weights


def fit(
    examples: Examples,
    features: Mapping[str, Any],
    *,
    epochs: int,
    rate: float,
    decay: float,
    prior: float,
    seed: int = 0,
) -> HashedNgramScorer:
    """The scorer that minimises the weighted logistic loss, started at `prior` times the log-count ratios.

    The start is that of Wang & Manning 2012 (naive Bayes features for linear models); `decay` pulls back to it.
    """
    torch.manual_seed(seed)
    flat, starts = torch.from_numpy(examples.flat), examples.starts
    lengths = np.diff(starts)
    label_of = np.repeat(examples.labels, lengths)
    weight_of = np.repeat(examples.weights, lengths)
    positive = 1 + np.bincount(examples.flat, weights=label_of * weight_of, minlength=SIZE)
    negative = 1 + np.bincount(examples.flat, weights=(1 - label_of) * weight_of, minlength=SIZE)
    ratio = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    start = torch.from_numpy(ratio * prior).float()
    weights, bias = torch.nn.Parameter(start[:, None].clone()), torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([weights, bias], lr=rate)
    labels, importance = torch.from_numpy(examples.labels), torch.from_numpy(examples.weights)
    generator = np.random.default_rng(seed)
    batch = 1024
    total = epochs * -(-len(labels) // batch)
    step = 0
    for _ in range(epochs):
        order = generator.permutation(len(labels))
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            index = torch.cat([flat[starts[row] : starts[row + 1]] for row in rows])
            sizes = lengths[rows]
            offsets = torch.from_numpy(np.cumsum([0, *sizes[:-1]]))
            sums = torch.nn.functional.embedding_bag(index, weights, offsets, mode="sum")[:, 0]
            logits = bias + sums / torch.from_numpy(np.sqrt(np.maximum(sizes, 1))).float()
            losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows], reduction="none")
            loss = (losses * importance[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            for group in optimiser.param_groups:
                group["lr"] = rate * (1 - step / total)
            optimiser.step()
            with torch.no_grad():  # decoupled from Adam's scaling, or rare n-grams would not be pulled back
                weights.lerp_(start[:, None], decay * (1 - step / total))
            step += 1
    return HashedNgramScorer(weights.detach()[:, 0].numpy(), float(bias.detach()), **features)


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The probability that a positive scores above a negative, ties counted half."""
    ranks = pd.Series(scores).rank().to_numpy()
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def auc_interval(scores: NDArray[np.float64], positive: NDArray[np.bool_], *, seed: int = 0) -> str:
    """The area with its bootstrap interval, as text."""
    rows = np.random.default_rng(seed).integers(0, len(scores), size=(1000, len(scores)))
    low, high = np.quantile([auc(scores[row], positive[row]) for row in rows], [0.025, 0.975])
    return f"{auc(scores, positive):.3f} ({low:.3f} to {high:.3f})"


def accuracy(
    scorer: HashedNgramScorer, texts: Sequence[Sequence[str]], labels: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each text is on its side of one half."""
    logits = np.array([scorer.logit_of_tokens(tokens) for tokens in texts])
    return (logits >= 0) == (labels == 1)


def imdb(data: Path, split: str) -> tuple[list[list[str]], NDArray[np.float64], NDArray[np.int64]]:
    """Tokens, labels (1 positive) and row numbers of the reviews of a split, each text once."""
    frame = pd.read_parquet(data / "imdb" / f"{split}.parquet").drop_duplicates("text")
    return (
        [tokens_of(text) for text in frame["text"]],
        (frame["label"] == "pos").to_numpy(float),
        frame.index.to_numpy(),
    )


def sentiment(data: Path, *, choose: bool) -> None:
    """Trains and describes the sentiment scorer."""
    texts, labels, _ = imdb(data, "train")
    order = np.random.default_rng(0).permutation(len(texts))
    held, kept = order[: len(order) // 10], order[len(order) // 10 :]
    features: dict[str, Any] = {"longest": 2, "pieces": (4, 5)}
    best: dict[str, Any] = {"epochs": 4, "rate": 0.01, "decay": 0.0005, "prior": 0.5}
    widths = {"each": 6, "shortest": 12, "widest": 60}
    if choose:
        shorts = {words: [texts[i][:words] for i in held] for words, _ in SHORT}
        trials: tuple[dict[str, Any], ...] = (
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
        for change in trials:
            started = time.time()
            some, settings = _changed(features, change), _changed(best, change)
            examples = Examples.of(*windows([texts[i] for i in kept], labels[kept], seed=0, **widths), **some)
            scorer = fit(examples, some, **settings)
            right = [accuracy(scorer, [texts[i] for i in held], labels[held]).mean()]
            right += [accuracy(scorer, shorts[words], labels[held]).mean() for words, _ in SHORT]
            print(change, [f"{share:.4f}" for share in right], f"{time.time() - started:.0f} s", flush=True)
        return
    started = time.time()
    scorer = fit(Examples.of(*windows(texts, labels, seed=0, **widths), **features), features, **best)
    seconds = time.time() - started
    scorer = HashedNgramScorer.load(scorer.save(OUT / "sentiment.npz"))
    tests, truth, _ = imdb(data, "test")
    middle = np.random.default_rng(1)
    rows = [("whole reviews", tests)]
    for words, said in SHORT:
        rows.append((f"first {words} words ({said})", [tokens[:words] for tokens in tests]))
        starts = [int(middle.integers(0, max(len(tokens) - words, 0) + 1)) for tokens in tests]
        cut = [tokens[start : start + words] for tokens, start in zip(tests, starts, strict=True)]
        rows.append((f"any {words} words in a row", cut))
    table = []
    for said, cut_texts in rows:
        hits = accuracy(scorer, cut_texts, truth)
        interval = wilson_interval(int(hits.sum()), hits.size)
        table.append(f"| {said} | {hits.size:,} | {interval.mean:.1%} ({interval.low:.1%} to {interval.high:.1%}) |")
    facts = {
        "longest": scorer.longest,
        "pieces": " and ".join(map(str, scorer.pieces)),
        "buckets": f"{len(scorer.weights):,}",
        "kilobytes": f"{(OUT / 'sentiment.npz').stat().st_size / 1000:.0f}",
        "reviews": f"{len(texts):,}",
        **widths,
        "seconds": f"{seconds:.0f}",
        "settings": ", ".join(f"{key} {value}" for key, value in best.items()),
        "table": "\n".join(table),
    }
    (OUT / "sentiment.md").write_text(_SENTIMENT_CARD.format(**facts), encoding="utf-8")
    print((OUT / "sentiment.md").read_text(encoding="utf-8"))


def toxicity_data(data: Path, seed: int = 0) -> dict[str, pd.DataFrame]:
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


def _changed(settings: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those of the changes that are among them."""
    return {key: change.get(key, value) for key, value in settings.items()}


def toxicity_fit(
    tweets: pd.DataFrame, prose: pd.DataFrame, features: Mapping[str, Any], *, prose_weight: float, **settings: Any
) -> HashedNgramScorer:
    """The scorer from tweets, both classes of equal weight, and prose of `prose_weight` times their weight."""
    offensive = float(tweets["label"].mean())
    per_tweet = np.where(tweets["label"] == 1, 0.5 / offensive, 0.5 / (1 - offensive))
    per_text = np.full(len(prose), prose_weight * len(tweets) / len(prose))
    texts = [tokens_of(text) for text in [*tweets["text"], *prose["text"]]]
    labels = [*tweets["label"], *prose["label"]]
    return fit(Examples.of(texts, labels, [*per_tweet, *per_text], **features), features, **settings)


def calibration(scorer: HashedNgramScorer, texts: pd.DataFrame) -> tuple[float, float]:
    """Slope and offset of the log-odds that fit the labels of texts best (Platt 1999); by Newton's method."""
    logits = np.array([scorer.logit(text) for text in texts["text"]])
    rows = np.stack([logits, np.ones(len(logits))])
    labels = texts["label"].to_numpy()
    found = np.array([1.0, 0.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-found @ rows))
        found = found + np.linalg.solve((rows * (p * (1 - p))) @ rows.T, rows @ (labels - p))
    return float(found[0]), float(found[1])


def toxicity(data: Path, *, choose: bool) -> None:
    """Trains and describes the toxicity scorer."""
    parts = toxicity_data(data)
    features: dict[str, Any] = {"longest": 1, "pieces": (3, 4, 5)}
    best: dict[str, Any] = {"epochs": 10, "rate": 0.01, "decay": 0.002, "prior": 0.5, "prose_weight": 1.0}
    if choose:
        prose, tweets = parts["prose train"], parts["tweets train"]
        fold = np.random.default_rng(1).random(len(prose)) < 0.3
        trials: tuple[dict[str, Any], ...] = (
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
        for change in trials:
            some = _changed(features, change)
            scorer = toxicity_fit(tweets, prose[~fold], some, **_changed(best, change))
            shown = []
            for side in ("prompt", "continuation"):
                held = prose[fold & (prose["side"] == side)]
                p = scorer(list(held["text"]))
                error = np.abs(p - held["label"]).mean()
                shown.append(f"{side}: AUC {auc(p, held['label'].to_numpy() >= 0.5):.3f}, error {error:.3f}")
            print(change, "; ".join(shown), flush=True)
        return
    started = time.time()
    prose = parts["prose train"]
    fold = np.random.default_rng(1).random(len(prose)) < 0.3
    trial = toxicity_fit(parts["tweets train"], prose[~fold], features, **best)
    slope, offset = calibration(trial, prose[fold])
    scorer = toxicity_fit(parts["tweets train"], prose, features, **best)
    scorer = replace(scorer, weights=slope * scorer.weights, bias=slope * scorer.bias + offset, key="")
    seconds = time.time() - started
    scorer = HashedNgramScorer.load(scorer.save(OUT / "toxicity.npz"))
    prose, tweets = parts["prose test"], parts["tweets test"]
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
    p = scorer(list(prose["text"]))
    error = bootstrap_interval(np.abs(p - prose["label"].to_numpy()))
    facts = {
        "pieces": ", ".join(map(str, scorer.pieces)),
        "buckets": f"{len(scorer.weights):,}",
        "kilobytes": f"{(OUT / 'toxicity.npz').stat().st_size / 1000:.0f}",
        "tweets": f"{len(parts['tweets train']):,}",
        "prose": f"{len(parts['prose train']):,}",
        "seconds": f"{seconds:.0f}",
        "settings": ", ".join(f"{key} {value}" for key, value in best.items()),
        "table": "\n".join(rows),
        "error": f"{error.mean:.3f} ({error.low:.3f} to {error.high:.3f})",
    }
    (OUT / "toxicity.md").write_text(_TOXICITY_CARD.format(**facts), encoding="utf-8")
    print((OUT / "toxicity.md").read_text(encoding="utf-8"))


_SENTIMENT_CARD = """# The shipped sentiment scorer

The probability that a text is a positive film review: a linear model on hashed n-grams of 1 to {longest} words and
pieces of words ({pieces} characters), {buckets} buckets, int8 weights, {kilobytes} kB. Formula: `HashedNgramScorer` in
`steerlens/experiments/shared/scorers.py`.

- **Data**: the training labels of the Large Movie Review Dataset (IMDb; Maas et al. 2011), {reviews} reviews once
  duplicates are dropped; whole, and {each} windows of {shortest} to {widest} words of each. The data set was
  released to the public by its authors without a licence text; the weights are numbers by hash, none of its text.
- **Licence** of the weights: MIT, as the package.
- **Command**: `python scripts/train_scorers.py sentiment --data DATA` ({seconds} s on one core). Settings were
  chosen on a tenth of the training reviews (`--choose`).
- **Settings**: {settings}.

## Held-out accuracy

On the test split, whose films do not occur in training, decided at one half; 95 % Wilson intervals.

| texts | n | accuracy |
|---|---|---|
{table}

A short text has the label of the review that it was cut from: a plot summary counts as praise if the review was kind,
and no reader could tell. The limit for short texts is therefore well below 100 %.

## What it cannot do

It knows words, not sense: irony, "not as bad as", and quotations of others mislead it. On texts that are no film
reviews it still answers, with no claim to be right. Read it beside disfluency: broken text has a score too.
"""

_TOXICITY_CARD = """# The shipped toxicity scorer

The probability that a text is toxic: a linear model on hashed words and pieces of words ({pieces} characters),
{buckets} buckets, int8 weights, {kilobytes} kB.
Formula: `HashedNgramScorer` in `steerlens/experiments/shared/scorers.py`.

- **Data**: four fifths of the tweets of Davidson et al. 2017 (MIT; hate or offensive against neither, both with equal
  weight; users, links and retweet marks removed), {tweets} tweets; and half of a subset of RealToxicityPrompts
  (Gehman et al. 2020, Apache-2.0), {prose} prompts and continuations with their Perspective scores as soft labels.
  Slope and offset of the log-odds were fitted to a part of that half that a trial scorer had not seen.
- **Licence** of the weights: MIT, as the package.
- **Command**: `python scripts/train_scorers.py toxicity --data DATA` ({seconds} s on one core). Settings were
  chosen on a part of the training half (`--choose`).
- **Settings**: {settings}.

## Held-out quality

On the other half of RealToxicityPrompts and the other fifth of the tweets, never seen in training. Toxic means a
Perspective score of at least 0.5, or a tweet of the classes hate and offensive; intervals are 95 % (bootstrap for the
area under the ROC curve, Wilson for the accuracy at one half).

| texts | n | toxic | AUC | accuracy |
|---|---|---|---|---|
{table}

Mean distance from the Perspective score, prompts and continuations: {error}.

## What it cannot do

It knows words, not sense, and mostly the words of its sources: insults without a bad word pass, harmless uses of one
do not. The tweets were collected by a list of slurs, many from African American English, and their labels carry the
biases of those who gave them (Sap et al. 2019): text in that dialect, and text that names a group, scores too high.
Nearly half of the prose it learned from is toxic, and its probabilities are those of such a population: a harmless
sentence may get one half. Use it to compare conditions of one experiment, never to judge a person.
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scorer", choices=("sentiment", "toxicity"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with imdb/ and toxicity/")
    parser.add_argument("--choose", action="store_true", help="try settings on a part of the training data instead")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"there is no folder {arguments.data}; give the one that holds imdb/ and toxicity/ as --data")
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    {"sentiment": sentiment, "toxicity": toxicity}[arguments.scorer](arguments.data, choose=arguments.choose)


if __name__ == "__main__":
    main()
