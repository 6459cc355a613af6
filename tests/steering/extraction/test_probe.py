"""Probes against their definitions, on the activations of the plain model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import steerlens as sl
from steerlens.steering.extraction.linear_probes import auc, probe_direction
from tests.conftest import Case
from tests.steering.extraction.texts import CONTRAST, activations, close


def logistic_normal(positive: Tensor, negative: Tensor) -> Tensor:
    """Minimises ½|w|² + Σ log(1 + exp(−y (w·x + b))) with SciPy."""
    from scipy.optimize import minimize

    rows = torch.cat([positive, negative]).double().numpy()
    rows = rows - rows.mean(0)
    rows /= np.sqrt((rows**2).mean())
    signs = np.repeat([1.0, -1.0], [len(positive), len(negative)])

    def loss(w: Any) -> float:
        return 0.5 * w[:-1] @ w[:-1] + np.logaddexp(0, -signs * (rows @ w[:-1] + w[-1])).sum()

    return torch.from_numpy(
        minimize(loss, np.zeros(rows.shape[1] + 1), method="BFGS", options={"gtol": 1e-8}).x[:-1]
    ).float()


def discriminant_normal(positive: Tensor, negative: Tensor) -> Tensor:
    """Σ⁻¹(μ₊ − μ₋), Σ the mean of the classes' shrunk covariances (classes of equal size)."""
    from sklearn.covariance import ledoit_wolf

    covariances = []
    for side in (positive, negative):
        rows = side.double().numpy()
        spread = rows.std(0)
        covariances.append(spread[:, None] * ledoit_wolf(rows / spread)[0] * spread)
    difference = (positive.mean(0) - negative.mean(0)).double().numpy()
    return torch.from_numpy(np.linalg.solve((covariances[0] + covariances[1]) / 2, difference)).float()


NORMALS = {"logistic": logistic_normal, "lda": discriminant_normal, "means": lambda p, n: p.mean(0) - n.mean(0)}


@pytest.mark.parametrize("kind", NORMALS)
def test_the_normal_is_that_of_the_definition(kind: Any) -> None:
    noise = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    positive, negative = noise[:20] * 3 + torch.arange(6.0), noise[20:]
    found, wanted = probe_direction(positive, negative, kind=kind), NORMALS[kind](positive, negative)
    close(found / found.norm(), wanted / wanted.norm(), 1e-4)


@pytest.mark.parametrize("kind", NORMALS)
def test_the_vector_goes_from_mean_to_mean_along_the_normal(case: Case, kind: Any) -> None:
    train, test = CONTRAST.split(0.25, seed=1)
    vectors = sl.probe(case.model, CONTRAST, layers="all", kind=kind, seed=1)
    for layer, vector in vectors.items():
        plus, minus = (activations(case, side, layer) for side in (train.positive, train.negative))
        normal = probe_direction(plus, minus, kind=kind)
        unit = normal / normal.norm()
        close(vector.values[0], unit * (unit @ (plus.mean(0) - minus.mean(0))), 1e-3)
        scores = [activations(case, side, layer) @ unit for side in (test.positive, test.negative)]
        wins = [(float(a > b) + float(a == b) / 2) for a in scores[0] for b in scores[1]]
        assert vector.source["auc"] == pytest.approx(np.mean(wins))
        assert vector.placement == "all"


def test_class_means_are_the_mean_difference_of_the_training_half(any_model: Any) -> None:
    train, test = CONTRAST.split(0.5, seed=4)
    vector = sl.probe(any_model, CONTRAST, layer=2, kind="means", held_out=0.5, seed=4)
    close(vector.values, sl.mean_difference(any_model, train, layer=2).values)
    assert vector.source["contrast"] == train.record()
    given = sl.probe(any_model, train, layer=2, kind="means", held_out=test)
    close(given.values, vector.values)
    assert given.source["auc"] == vector.source["auc"]


@pytest.mark.parametrize("kind", NORMALS)
def test_units_and_bases_do_not_matter(kind: Any) -> None:
    """Another unit scales the normal; a rotation rotates it (but for lda, whose shrinkage looks at single features)."""
    noise = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    positive, negative = noise[:25] + torch.tensor([1.0, 2, 0, 0, 0]), noise[25:]
    plain = probe_direction(positive, negative, kind=kind)
    scaled = probe_direction(1000 * positive, 1000 * negative, kind=kind)
    close(scaled / scaled.norm(), plain / plain.norm(), 1e-4)
    if kind != "lda":
        turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
        turned = probe_direction(positive @ turn, negative @ turn, kind=kind)
        close(turned / turned.norm(), plain @ turn / plain.norm(), 1e-4)


def test_labelled_texts_without_pairs(any_model: Any) -> None:
    texts = [text for pair in zip(CONTRAST.positive, CONTRAST.negative, strict=True) for text in pair]
    labelled = sl.ContrastSet.labelled([*texts, "one more"], [*[1, 0] * 12, 0])
    assert sl.probe(any_model, labelled, layer=1).norm > 0


def test_equal_activations_give_zero_and_chance(any_model: Any) -> None:
    same_end = sl.ContrastSet.of([(f"good {x} day", f"bad {x} day") for x in ("old", "new", "long", "hot")])
    for kind in NORMALS:
        vector = sl.probe(any_model, same_end, layer=0, kind=kind)  # type: ignore[call-overload]
        assert vector.norm == 0.0
        assert vector.source["auc"] == 0.5


def test_classes_without_spread_are_told_by_their_means() -> None:
    positive, negative = torch.ones(3, 4), torch.zeros(3, 4)
    assert torch.equal(probe_direction(positive, negative, kind="lda"), torch.ones(4))


def test_auc_counts_pairs_in_order() -> None:
    positive, negative = torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([[0.0], [2.0]])
    assert auc(torch.ones(1), positive, negative) == pytest.approx((1 + 1 + 1 + 0 + 1 + 0.5) / 6)
    assert auc(-torch.ones(1), positive, negative) == pytest.approx(1 - (1 + 1 + 1 + 0 + 1 + 0.5) / 6)


@pytest.mark.parametrize(
    ("contrast", "options", "words"),
    [
        ([("a", "b")], {}, "contrast must be a ContrastSet, got list"),
        (sl.ContrastSet.of([("a", "b"), ("c", "d")]), {}, "1 text of a class is too few"),
        (CONTRAST, {"kind": "svm"}, "kind='svm' is unknown"),
        (CONTRAST, {"held_out": 0}, "held_out must be a share between 0 and 1"),
        (CONTRAST, {"token": "none"}, "token='none' is unknown"),
    ],
)
def test_bad_input_is_one_line(any_model: Any, contrast: Any, options: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.probe(any_model, contrast, layer=1, **options)
