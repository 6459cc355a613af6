"""Operations by their formulas, head by head, on numbers made up here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from steerlens.steering.operations import OPERATIONS, Operation, change, kind_of, lengths_and_directions, table_of


def applied(x: Tensor, v: Tensor, operation: Operation, **given: Any) -> Tensor:
    return x + change(x, table_of(v[None], operation, **given).at(0), kind_of(operation))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


X, V, M = numbers(7, 12) * 5, numbers(12, seed=1) * 3, numbers(12, seed=2) * 2
UNIT = V / V.norm()


def test_each_is_its_formula() -> None:
    along = (X @ UNIT)[:, None] * UNIT
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(applied(X, V, "add"), X + V, **close)
    turned = X + V
    assert_close(applied(X, V, "add_keep_norm"), turned * (X.norm(dim=-1) / turned.norm(dim=-1))[:, None], **close)
    assert_close(applied(X, V, "ablate"), X - along, **close)
    assert_close(applied(X, V, "clamp", value=-2.5), X - along - 2.5 * UNIT, **close)
    assert_close(applied(X, V, "clamp"), X - along + V, **close)
    assert_close(applied(X, V, "affine", mean=M), X - along + (M @ UNIT) * UNIT + V, **close)
    # LoReFT: x + R(Wx + b − Rx), equation 2, with R and W of one row
    loreft = X + (X @ M + 0.7 - X @ UNIT)[:, None] * UNIT
    assert_close(applied(X, UNIT, "reft", reads=M - UNIT, value=0.7), loreft, **close)
    assert_close(applied(X, -3 * UNIT, "reft", reads=M - UNIT, value=0.7), X - 3 * (loreft - X), **close)


def test_laws() -> None:
    ablated = applied(X, V, "ablate")
    assert (ablated @ UNIT).abs().max() < 1e-5
    assert_close(applied(ablated, V, "ablate"), ablated, rtol=0, atol=1e-5)
    assert_close(applied(X, -7 * V, "ablate"), ablated, rtol=0, atol=1e-5)
    assert_close(applied(X, 2 * V, "add_keep_norm").norm(dim=-1), X.norm(dim=-1), rtol=1e-5, atol=0)
    for row in X:
        assert_close(applied(row[None], V, "clamp", value=float(row @ UNIT)), row[None], rtol=0, atol=1e-5)
    assert_close(applied(X, -2 * V, "clamp") @ UNIT, torch.full((7,), -2 * float(V.norm())), rtol=1e-5, atol=1e-5)


BY_HEAD = [one for one in OPERATIONS if one != "reft"]  # which reads the whole row


@pytest.mark.parametrize("operation", BY_HEAD)
def test_heads_are_changed_one_by_one(operation: Operation) -> None:
    given = {"mean": M} if operation == "affine" else {}
    whole = applied(X, V, operation, heads=3, **given)
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        given = {"mean": M[part]} if operation == "affine" else {}
        assert_close(whole[:, part], applied(X[:, part], V[part], operation, **given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_heads_that_are_zero_stay_as_they_are_to_the_last_bit(operation: Operation) -> None:
    v = V.clone()
    v[4:8] = 0
    given = {"affine": {"mean": M}, "reft": {"reads": M, "value": 2.0}}.get(operation, {})
    assert torch.equal(applied(X, v, operation, heads=3, **given)[:, 4:8], X[:, 4:8])


@pytest.mark.parametrize("operation", ["ablate", "clamp", "affine"])
def test_a_zero_direction_is_an_error(any_model: Any, operation: Any) -> None:
    vector = sl.SteeringVector(torch.ones(1, 32), 1, stamp(any_model))
    mean = {"mean": vector} if operation == "affine" else {}
    sl.Injection(vector, operation=operation, **mean)
    with pytest.raises(sl.SteerlensError, match=f"operation '{operation}' needs a direction, .* is zero"):
        sl.Injection(0 * vector, operation=operation, **mean)


def test_what_an_operation_takes(any_model: Any) -> None:
    vector = sl.SteeringVector(torch.ones(1, 32), 1, stamp(any_model))
    for given, words in (
        ({"operation": "multiply"}, "operation 'multiply' is unknown; use one of add, "),
        ({"operation": ["add"]}, "is unknown"),
        ({"value": 1.0}, "'add' takes none"),
        ({"operation": "ablate", "value": 0}, "'ablate' takes none"),
        ({"operation": "clamp", "value": "1"}, "value must be a .*number"),
        ({"operation": "clamp", "value": float("nan")}, "value must be a finite number"),
        ({"operation": "affine"}, "needs mean="),
        ({"operation": "reft"}, "needs reads=, .*made by sl.reft"),
        ({"operation": "ablate", "reads": vector}, "takes no reads="),
        ({"operation": "reft", "reads": torch.ones(32)}, "reads must be a SteeringVector"),
        ({"operation": "reft", "reads": sl.SteeringVector(torch.ones(1, 32), 2, vector.model)}, "reads must be one"),
        ({"operation": "reft", "reads": vector, "value": "1"}, "value must be a .*number"),
        ({"operation": "clamp", "mean": vector}, "takes no mean="),
        ({"operation": "affine", "mean": torch.ones(32)}, "mean must be a SteeringVector"),
        ({"operation": "affine", "mean": sl.SteeringVector(torch.ones(1, 32), 2, vector.model)}, "mean must be one"),
        ({"operation": "affine", "mean": sl.SteeringVector(torch.ones(2, 32), 1, vector.model)}, "mean must be one"),
    ):
        with pytest.raises(sl.SteerlensError, match=words) as error:
            sl.Injection(vector, **given)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_titles_say_what_is_done(any_model: Any) -> None:
    vector = sl.SteeringVector(torch.ones(1, 32), 1, stamp(any_model), label="refusal")
    titles = [
        sl.Condition((injection,)).label
        for injection in (
            sl.Injection(2 * vector),
            sl.Injection(vector, operation="ablate"),
            sl.Injection(vector, operation="clamp", value=3),
            sl.Injection(0.5 * vector, operation="reft", reads=vector, value=3),
        )
    ]
    assert titles == ["2 × (refusal)", "ablate refusal", "clamp refusal to 3", "reft 0.5 × (refusal)"]


@pytest.mark.parametrize("unit", [1e-42, 1e-38, 1e-25, 1e-15, 1e15, 1e19, 1e30, 1e36])
def test_directions_do_not_depend_on_the_unit(unit: float) -> None:
    """Squares of such entries are zero or infinity in float32."""
    row = V * torch.tensor(unit)
    unit_row = (row.double() / row.double().norm()).float()  # of what is left of the digits
    close = {"rtol": 1e-4, "atol": 1e-4}
    assert_close(applied(X, row, "ablate"), X - (X @ unit_row)[:, None] * unit_row, **close)
    assert_close(applied(X, row, "clamp", value=2.0), X + (2 - X @ unit_row)[:, None] * unit_row, **close)
    turned = X.double() + row.double()
    wanted = turned * (X.double().norm(dim=-1) / turned.norm(dim=-1))[:, None]
    assert_close(applied(X, row, "add_keep_norm"), wanted.float(), **close)


def test_rows_that_are_not_finite_stay_visible() -> None:
    lengths, directions = lengths_and_directions(torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [0.0, 0.0]]))
    assert lengths[:2].isnan().all() or not lengths[:2].isfinite().any()
    assert directions[:2].isnan().any(-1).all(), "no direction is made up"
    assert lengths[2] == 0
    assert not directions[2].any()
