"""`fit`: a linear model on hashed n-grams from labelled texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steerlens.experiments.shared.scorers import HashedNgramScorer, buckets_of

SIZE = 2**18


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


def changed(settings: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those of the changes that are among them."""
    return {key: change.get(key, value) for key, value in settings.items()}
