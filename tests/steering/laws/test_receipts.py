"""Law 12: receipts tell what was added where."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from tests.steering.laws.cases import PLACEMENTS, log_probs, random_ids, random_vector, span_for


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_law_12_receipts_tell_what_was_added_where(model: Any, placement: Any) -> None:
    span, n = span_for(placement, 2), 6
    vector = 3 * random_vector(model, 2, span)
    expected = {
        "front": (0, 1),
        "mid": (2, 3),
        "back": (4, 5),
        "last": (5,),
        "all": (1, 2, 3, 4, 5),
        "prompt": (1, 2, 3, 4, 5),
        "from_last": (5,),
        0: (0, 1),
        2: (2, 3),
        -3: (3, 4),
    }[placement]
    with sl.steer(model, vector, placement=placement) as receipts:
        (receipt,) = receipts
        assert receipt.applications == 0
        log_probs(model, random_ids(n))
        assert receipt.applications == 1
        log_probs(model, [random_ids(n), random_ids(n, 1)])
    assert receipt.applications == 3
    assert receipt.hook == "blocks.2.hook_resid_pre"
    assert (receipt.layer, receipt.placement, receipt.positions) == (2, placement, expected)
    assert receipt.norm == pytest.approx(float(vector.values.norm()))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_law_12_receipts_count_positions_from_the_first_real_token(gpt2: Any, placement: Any, side: str) -> None:
    span = span_for(placement, 2)
    ids, other = random_ids(5), random_ids(8)
    row = [0, 0, 0, *ids] if side == "left" else [*ids, 0, 0, 0]
    mask = [[0] * 3 + [1] * 5 if side == "left" else [1] * 5 + [0] * 3, [1] * 8]
    expected = {"front": (0, 1), "mid": (1, 2), "back": (3, 4), "last": (4,), "all": (1, 2, 3, 4), 0: (0, 1)}
    expected |= {"prompt": (1, 2, 3, 4), "from_last": (4,)}
    with sl.steer(gpt2, random_vector(gpt2, 1, span), placement=placement) as receipts:
        log_probs(gpt2, [row, other], attention_mask=torch.tensor(mask))
    assert receipts[0].positions == (expected | {2: (2, 3), -3: (2, 3)})[placement]
    assert receipts[0].applications == 2


def test_law_12_a_vector_that_was_never_added_is_an_error(model: Any) -> None:
    vector = random_vector(model, 1, 2)
    with pytest.raises(sl.SteerlensError, match=r"never added.*blocks\.1\.hook_resid_pre"), sl.steer(model, vector):
        pass
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, random_vector(model, 2, 2)):
        model.run_with_cache(
            torch.tensor([random_ids(5)]), stop_at_layer=1, names_filter="blocks.0.hook_resid_pre", return_type=None
        )
    # The user's own error is not covered up by ours.
    with pytest.raises(ZeroDivisionError), sl.steer(model, vector):
        raise ZeroDivisionError


def test_law_12_a_zero_vector_was_added(model: Any) -> None:
    with sl.steer(model, 0 * random_vector(model, 1, 2)) as receipts:
        log_probs(model, random_ids(5))
    assert (receipts[0].applications, receipts[0].norm) == (1, 0.0)
