"""Linear probes: the normal of what separates two classes of activations, and how well it does on others."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

ProbeKind = Literal["logistic", "lda", "means"]
KINDS: tuple[ProbeKind, ...] = ("logistic", "lda", "means")


def probe_direction(
    positive: Float[Tensor, "n width"], negative: Float[Tensor, "m width"], *, kind: ProbeKind
) -> Float[Tensor, " width"]:
    """The normal of the probe, pointing to the positives; zero if all rows are the same."""
    difference = positive.mean(0) - negative.mean(0)
    if kind == "means":
        return difference
    rows = torch.cat([positive, negative]).cpu().double().numpy()
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    rows = rows - rows.mean(0)
    spread = float(np.sqrt(np.square(rows).mean()))
    if spread <= 1e-6 * float(positive.abs().max()):
        return torch.zeros_like(difference)
    rows /= spread
    if kind == "logistic":
        from sklearn.linear_model import LogisticRegression

        normal = LogisticRegression(C=1.0, tol=1e-6, max_iter=1000).fit(rows, labels).coef_[0]
    else:
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        normal = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(rows, labels).coef_[0]
        if not np.isfinite(normal).all() or not normal.any():  # no spread within the classes: nothing to divide by
            return difference
    return torch.from_numpy(normal).to(difference)


def auc(
    direction: Float[Tensor, " width"], positive: Float[Tensor, "n width"], negative: Float[Tensor, "m width"]
) -> float:
    """The probability that a positive row lies further along the direction than a negative one (ties count half)."""
    from sklearn.metrics import roc_auc_score

    scores = torch.cat([positive, negative]).cpu().double() @ direction.cpu().double()
    return float(roc_auc_score(np.repeat([1, 0], [len(positive), len(negative)]), scores.numpy()))


def accuracy(
    direction: Float[Tensor, " width"],
    learned: tuple[Float[Tensor, "n width"], Float[Tensor, "m width"]],
    tested: tuple[Float[Tensor, "p width"], Float[Tensor, "q width"]],
) -> float:
    """The share of tested rows on their class's side of the point midway between the learned means, class by class."""
    middle = (learned[0].mean(0) + learned[1].mean(0)) @ direction / 2
    right = [(tested[0] @ direction > middle).float().mean(), (tested[1] @ direction <= middle).float().mean()]
    return float(sum(right)) / 2
