"""How good a scorer is on texts that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlens.experiments.shared.scorers import HashedNgramScorer


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
