"""`SteeringVector`: a value with arithmetic."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32

import steerlens as sl
from steerlens.steering import check_vector
from tests.steering.made_up_vectors import STAMP, vector

finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)
quick = settings(max_examples=50, deadline=None, derandomize=True)


# ----------------------------------------------------------------------------------------------------------- arithmetic


@quick
@given(x=finite, y=finite)
def test_the_arithmetic_of_vectors(x: float, y: float) -> None:
    a, b = vector(3, seed=1), vector(3, seed=2)
    for got, wanted in [
        (x * a, a.values * x),
        (a * x, a.values * x),
        (-a, -a.values),
        (a + b, a.values + b.values),
        (a - b, a.values - b.values),
        (x * a + y * b, a.values * x + b.values * y),
        (sum([a, b]), a.values + b.values),
    ]:
        assert torch.equal(got.values, wanted)
        assert got.layer == a.layer
    if abs(x) > 1e-3:
        torch.testing.assert_close((a / x).values, a.values / x)


def test_the_coefficient_is_a_record_of_the_factors() -> None:
    a = vector()
    assert (a.coeff, (5 * a).coeff, (-(2 * a) / 4).coeff, (0 * a).coeff) == (1.0, 5.0, -0.5, 0.0)
    assert (2 * a + a).coeff == 1.0
    assert (5 * a).title == "5 × (a)"
    assert a.title == "a"
    assert (2 * a + -a).title == "2 × (a) + -1 × (a)"


@pytest.mark.parametrize(
    "factor", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), torch.tensor(2.0), torch.tensor(2), np.array(2.0)]
)
def test_numbers_of_all_kinds(factor: Any) -> None:
    a = vector()
    for product in (factor * a, a * factor):
        assert isinstance(product, sl.SteeringVector)
        assert torch.equal(product.values, 2 * a.values)
        assert product.coeff == 2.0
        assert type(product.coeff) in (int, float)
    assert torch.equal((a / factor).values, a.values / 2)


@pytest.mark.parametrize(
    "factor", [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.inf), 1e300, 10**400]
)
def test_coefficients_that_are_no_number_or_too_large(factor: Any) -> None:
    with pytest.raises(sl.SteerlensError, match=r"finite|NaN or infinity"):
        factor * vector()


@pytest.mark.parametrize("divisor", [0, 0.0, -0.0, math.nan, torch.tensor(0.0)])
def test_divisors_that_are_none(divisor: Any) -> None:
    with pytest.raises(sl.SteerlensError):
        vector() / divisor


@pytest.mark.parametrize("other", ["2", None, [1.0], torch.ones(3, 8), np.ones(3), 1 + 2j])
def test_things_that_multiply_nothing(other: Any) -> None:
    with pytest.raises(TypeError):
        other * vector()
    with pytest.raises(TypeError):
        vector() * other


@pytest.mark.parametrize("other", [1, 2.0, "a", None, torch.ones(3, 8)])
def test_things_that_cannot_be_added(other: Any) -> None:
    for operation in (lambda: vector() + other, lambda: other + vector(), lambda: vector() - other):
        with pytest.raises(TypeError):
            operation()


def test_a_sum_of_different_lengths_lines_up_at_the_front() -> None:
    long, short = vector(4, seed=1), vector(2, seed=2)
    for total in (long + short, short + long):
        wanted = long.values.clone()
        wanted[:2] += short.values
        assert torch.equal(total.values, wanted)


@pytest.mark.parametrize("placement", ["back", "mid", 2, -1])
def test_a_sum_of_different_lengths_elsewhere_does_not_line_up(placement: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="would not line up; pass both as a tuple"):
        vector(4).on(placement) + vector(2).on(placement)


def test_sums_that_mean_nothing() -> None:
    with pytest.raises(sl.SteerlensError, match="layers 1 and 2"):
        vector(layer=1) + vector(layer=2)
    with pytest.raises(sl.SteerlensError, match="two models: the weights differ"):
        vector() + vector(model=replace(STAMP, sketch=tuple(range(2, 18))))
    with pytest.raises(sl.SteerlensError, match="'front' and 'all'"):
        vector(1) + vector(1).on("all")


# --------------------------------------------------------------------------------------------------------- immutability


def test_a_vector_is_a_value() -> None:
    values = torch.ones(2, 8)
    a = sl.SteeringVector(values, layer=0, model=STAMP)
    values.fill_(7)
    assert (a.values == 1).all(), "the caller's tensor and the vector's are two"
    with pytest.raises(FrozenInstanceError):
        a.layer = 3  # type: ignore[misc]
    before = a.values.clone()
    _ = 5 * a, a + a, -a, a / 2, a.at(0), a.on("back")
    assert torch.equal(a.values, before)
    assert a.values.data_ptr() != (1 * a).values.data_ptr()


def test_gradients_stay_outside() -> None:
    weights = torch.ones(2, 8, requires_grad=True)
    assert not sl.SteeringVector(weights * 2, layer=0, model=STAMP).values.requires_grad


# --------------------------------------------------------------------------------------------------------------- making


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64])
def test_values_of_any_dtype_become_float32(dtype: torch.dtype) -> None:
    assert sl.SteeringVector(torch.ones(2, 8, dtype=dtype), layer=0, model=STAMP).values.dtype == torch.float32


def test_values_that_are_not_contiguous() -> None:
    values = torch.arange(48.0).reshape(8, 6).T[::2]
    a = sl.SteeringVector(values, layer=0, model=STAMP)
    assert torch.equal(a.values, values)
    assert torch.equal((2 * a).values, 2 * values)


def test_whatever_comes_the_values_have_their_shape() -> None:
    for values in (torch.ones(8), torch.ones(1, 8), torch.ones(5, 8, dtype=torch.int32)):
        assert isinstance(sl.SteeringVector(values, layer=0, model=STAMP).values, Float32[torch.Tensor, "pos d_model"])


def test_one_row_may_come_flat() -> None:
    assert sl.SteeringVector(torch.ones(8), layer=0, model=STAMP).values.shape == (1, 8)


@pytest.mark.parametrize("shape", [(0, 8), (2, 2, 8), ()])
def test_values_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(sl.SteerlensError, match=r"values"):
        sl.SteeringVector(torch.ones(shape), layer=0, model=STAMP)


def test_values_of_the_wrong_width() -> None:
    with pytest.raises(sl.SteerlensError, match=r"9 wide but the model 'toy' has d_model 8"):
        sl.SteeringVector(torch.ones(2, 9), layer=0, model=STAMP)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    values = torch.ones(2, 8)
    values[1, 3] = bad
    with pytest.raises(sl.SteerlensError, match="NaN or infinity"):
        sl.SteeringVector(values, layer=0, model=STAMP)
    with pytest.raises(sl.SteerlensError, match="NaN or infinity"):
        sl.SteeringVector(torch.full((1, 8), 1e300, dtype=torch.float64), layer=0, model=STAMP)


@pytest.mark.parametrize("values", [np.ones((2, 8)), [[1.0] * 8], None, "values"])
def test_values_that_are_no_tensor(values: Any) -> None:
    with pytest.raises(sl.SteerlensError, match=r"must be a torch\.Tensor"):
        sl.SteeringVector(values, layer=0, model=STAMP)


def test_layers_of_numpy_are_layers() -> None:
    a = vector(layer=np.int64(2))
    assert a.layer == 2
    assert type(a.layer) is int


@pytest.mark.parametrize("layer", [True, 1.0, "1", None, [1]])
def test_layers_that_are_no_whole_number(layer: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="a layer must be a whole number"):
        vector(layer=layer)


@pytest.mark.parametrize("layer", [-1, 4, 10**9])
def test_layers_out_of_range(layer: int) -> None:
    with pytest.raises(sl.SteerlensError, match="out of range for a model of 4 layers; use 0 to 3"):
        vector(layer=layer)


@pytest.mark.parametrize("placement", ["Front", "", "middle", 1.5, True, None, [1], ("front",)])
def test_placements_that_are_none(placement: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="use one of front, mid, back, "):
        vector().on(placement)


# -------------------------------------------------------------------------------------------------------------- looking


def test_norms() -> None:
    a = vector()
    torch.testing.assert_close(a.norms, a.values.pow(2).sum(-1).sqrt())
    assert a.norm == pytest.approx(float(a.values.pow(2).sum().sqrt()))


def test_one_position_of_it() -> None:
    a = vector(3)
    for position in (-3, -1, 0, 2):
        assert torch.equal(a.at(position).values, a.values[[position]])
    assert a.at(-1).label == "a[2]"
    for position in (3, -4):
        with pytest.raises(sl.SteerlensError, match="out of range for a vector of 3 positions"):
            a.at(position)


def test_how_it_looks() -> None:
    text = repr(5 * vector(8))
    assert text.startswith("SteeringVector(5 × (a), layer=1, positions=8, norms=[")
    assert "…" in text
    assert "toy" in text


def test_check_vector_wants_a_vector(any_model: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="expected a SteeringVector, got Tensor"):
        check_vector(any_model, torch.ones(1, 32))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        torch.ones(1, 8).to_sparse(),
        torch.ones(1, 8, device="meta"),
        torch.ones(1, 8, dtype=torch.complex64),
        torch.quantize_per_tensor(torch.ones(1, 8), 0.1, 0, torch.qint8),
        torch.nested.nested_tensor([torch.ones(8), torch.ones(8)]),
    ],
    ids=["sparse", "meta", "complex", "quantised", "nested"],
)
def test_values_that_are_no_plain_numbers(values: torch.Tensor) -> None:
    with pytest.raises(sl.SteerlensError, match="dense real numbers in memory"):
        sl.SteeringVector(values, 1, STAMP)
