"""Linear probes as directions: logistic regression, linear discriminant, difference of the class means."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import choice, flag, seed_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model
from steerlens.steering.chats import template_of
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.activations import Layers, which_layers
from steerlens.steering.extraction.class_directions import as_vectors, scaled_to_means
from steerlens.steering.extraction.readings import contrast_readings
from steerlens.steering.extraction.token_choice import Token
from steerlens.steering.vectors import SteeringVector

ProbeKind = Literal["logistic", "lda", "means"]
KINDS: tuple[ProbeKind, ...] = ("logistic", "lda", "means")


@overload
def probe(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layer: int,
    kind: ProbeKind = ...,
    token: Token = ...,
    held_out: float | ContrastSet = ...,
    seed: int = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> SteeringVector: ...


@overload
def probe(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layers: Layers,
    kind: ProbeKind = ...,
    token: Token = ...,
    held_out: float | ContrastSet = ...,
    seed: int = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> dict[int, SteeringVector]: ...


def probe(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    kind: ProbeKind = "logistic",
    token: Token = "last",
    held_out: float | ContrastSet = 0.25,
    seed: int = 0,
    batch_size: int = 32,
    live_hooks: bool = False,
) -> SteeringVector | dict[int, SteeringVector]:
    """The one-position vector along the normal of a linear probe that separates positive from negative texts.

    Probes are scikit-learn's: logistic regression with an L2 penalty (C = 1) on activations divided by one number, the
    root mean square of their deviations (the direction does not depend on the residual stream's unit); linear
    discriminant analysis with Ledoit-Wolf shrinkage, w = Σ⁻¹(μ₊ − μ₋); or the class means themselves, w = μ₊ − μ₋ (the
    mass-mean probe of Marks and Tegmark, arXiv 2310.06824). The vector has the length and sign of the difference of the
    class means along w (see `scaled_to_means`), so coefficient 1 is comparable to `mean_difference`; it is zero at a
    layer where the classes have the same activations. Placement `"all"`.

    `vector.source["auc"]` is the area under the ROC curve of w·h on texts used neither for the probe nor for the
    length; 0.5 is chance.

    Args:
        contrast: pairs, or labelled texts (`ContrastSet.labelled`).
        layer, layers: one layer, or several from the same forward passes.
        kind: `"logistic"`, `"lda"` or `"means"`.
        token: which token is read; see `Token`.
        held_out: the share to test on, split off by `ContrastSet.split`, or a separate set.
        seed: of the split.
        batch_size, live_hooks: as for `mean_difference`.

    Raises:
        SteerlensError: not a ContrastSet, fewer than two texts of a class to learn from, layer out of range.
    """
    require_model(model)
    chosen = which_layers(model, layer, layers)
    choice("kind", kind, tuple(KINDS))
    live_hooks, seed = flag("live_hooks", live_hooks), seed_number(seed)
    train, test = train_and_test(contrast, held_out, seed)
    options = {"batch_size": batch_size, "live_hooks": live_hooks}
    learned = contrast_readings(model, train, chosen, token=token, **options)  # type: ignore[arg-type]
    tested = contrast_readings(model, test, chosen, token=token, **options)  # type: ignore[arg-type]
    normals = {one: probe_direction(*learned[one], kind=kind) for one in chosen}
    vectors = as_vectors(
        model,
        {one: scaled_to_means(normals[one], *learned[one]) for one in chosen},
        label=f"{kind} probe ({train.name})",
        source={
            "method": "probe",
            "kind": kind,
            "token": str(token),
            "contrast": train.record(),
            "held_out": test.record(),
            **template_of(model, train.texts),
        },
        by_layer={one: {"auc": auc(normals[one], *tested[one])} for one in chosen},
    )
    return vectors[chosen[0]] if layer is not None else vectors


def train_and_test(contrast: object, held_out: float | ContrastSet, seed: int) -> tuple[ContrastSet, ContrastSet]:
    """The texts to learn from and those to test on.

    Raises:
        SteerlensError: not a ContrastSet, or too few texts to learn from.
    """
    if not isinstance(contrast, ContrastSet):
        raise SteerlensError(
            f"contrast must be a ContrastSet, got {type(contrast).__name__}; use ContrastSet.of(pairs)"
        )
    train, test = (contrast, held_out) if isinstance(held_out, ContrastSet) else contrast.split(held_out, seed=seed)
    if len(train) < 2:
        raise SteerlensError(
            f"{len(train)} text of a class is too few to learn from; give at least 2 besides those held out"
        )
    return train, test


def probe_direction(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"], *, kind: ProbeKind
) -> Float[Tensor, " d_model"]:
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
    direction: Float[Tensor, " d_model"], positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> float:
    """The probability that a positive row lies further along the direction than a negative one (ties count half)."""
    from sklearn.metrics import roc_auc_score

    scores = torch.cat([positive, negative]).cpu().double() @ direction.cpu().double()
    return float(roc_auc_score(np.repeat([1, 0], [len(positive), len(negative)]), scores.numpy()))
