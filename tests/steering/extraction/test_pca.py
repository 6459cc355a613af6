"""Principal components against NumPy and scikit-learn on the activations of the plain model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import steerlens as sl
from steerlens.steering.extraction.pca import differences, principal_direction
from tests.conftest import Case
from tests.steering.extraction.texts import CONTRAST, activations, close


def along(direction: Tensor, difference: Tensor) -> Tensor:
    unit = direction / direction.norm()
    return unit * (unit @ difference)


def test_it_is_the_largest_second_moment_of_the_differences(case: Case) -> None:
    vectors = sl.pca(case.model, CONTRAST, layers="all", token="differing", batch_size=7)
    for layer, vector in vectors.items():
        plus, minus = (activations(case, side, layer, slice(2, 3)) for side in (CONTRAST.positive, CONTRAST.negative))
        apart = (plus - minus).double().numpy()
        values, axes = np.linalg.eigh(apart.T @ apart)
        close(vector.values[0], along(torch.from_numpy(axes[:, -1]).float(), (plus - minus).mean(0)), 1e-4)
        assert vector.source["explained"] == pytest.approx(values[-1] / values.sum(), abs=1e-4)
        assert vector.placement == "all"


def test_centred_it_is_what_scikit_learn_calls_pca(case: Case) -> None:
    from sklearn.decomposition import PCA

    vector = sl.pca(case.model, CONTRAST, layer=2, center=True)
    plus, minus = (activations(case, side, 2) for side in (CONTRAST.positive, CONTRAST.negative))
    wanted = PCA(n_components=1).fit((plus - minus).double().numpy())
    close(vector.values[0], along(torch.from_numpy(wanted.components_[0]).float(), (plus - minus).mean(0)), 1e-3)
    assert vector.source["explained"] == pytest.approx(wanted.explained_variance_ratio_[0], abs=1e-3)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("center", [False, True])
def test_both_gram_matrices_give_the_singular_vector(shape: tuple[int, int], center: bool) -> None:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    direction, share = principal_direction(rows, center=center)
    _, sizes, axes = torch.linalg.svd((rows - center * rows.mean(0)).double())
    assert abs(float(direction.double() @ axes[0])) == pytest.approx(1.0, abs=1e-6)
    assert share == pytest.approx(float(sizes[0] ** 2 / (sizes**2).sum()))


def test_swapping_the_classes_turns_it_round(any_model: Any) -> None:
    turned = sl.ContrastSet(CONTRAST.negative, CONTRAST.positive)
    for pairing in ("pairs", "random"):
        one, other = (sl.pca(any_model, c, layer=2, pairing=pairing) for c in (CONTRAST, turned))  # type: ignore[call-overload]
        if pairing == "pairs":
            close(one.values, -other.values)
        for vector, contrast in ((one, CONTRAST), (other, turned)):
            mean = sl.mean_difference(any_model, contrast, layer=2)
            assert float(vector.values[0] @ mean.values[0]) > 0
            # its own projection of the mean difference: coefficient 1 goes from mean to mean along it
            assert float(vector.values[0] @ mean.values[0]) == pytest.approx(vector.norm**2, rel=1e-4)


def test_random_pairs_take_every_text_at_most_once() -> None:
    positive, negative = torch.eye(9)[:5], torch.eye(9)[5:]
    rows = differences(positive, negative, "random", 0)
    assert len(rows) == 4
    assert torch.equal(rows.sum(1), torch.zeros(4))
    assert int((rows.abs().sum(0) > 1).sum()) == 0
    assert torch.equal(rows, differences(positive, negative, "random", 0))
    assert not torch.equal(rows, differences(positive, negative, "random", 1))


def test_random_pairing_needs_no_pairs(any_model: Any) -> None:
    apart = sl.ContrastSet(CONTRAST.positive, CONTRAST.negative[:-3], paired=False)
    vector = sl.pca(any_model, apart, layer=1, pairing="random")
    assert vector.norm > 0
    assert vector.source["pairing"] == "random"


def test_layers_where_nothing_differs_give_zero(any_model: Any) -> None:
    same_end = sl.ContrastSet.of([("I love this", "I hate this"), ("I love them", "I hate them")])
    vectors = sl.pca(any_model, same_end, layers=[0, 1])
    assert vectors[0].norm == 0.0
    assert vectors[1].norm > 0


@pytest.mark.parametrize(
    ("contrast", "options", "words"),
    [
        ([("a", "b")], {}, "contrast must be a ContrastSet, got list"),
        (sl.ContrastSet.of([("a", "b")]), {}, "at least two pairs"),
        (sl.ContrastSet(["a", "b"], ["c", "d"], paired=False), {}, "not in pairs; use pairing='random'"),
        (CONTRAST, {"pairing": "none"}, "pairing='none' is unknown"),
        (CONTRAST, {"batch_size": 0}, "batch_size must be"),
    ],
)
def test_bad_input_is_one_line(any_model: Any, contrast: Any, options: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.pca(any_model, contrast, layer=1, **options)
