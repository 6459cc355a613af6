"""`steer` over rows of every layout: placements, padding, masks, texts, and where a row begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import steerlens as sl
from steerlens.models import is_bridge
from tests import reference
from tests.conftest import KINDS, Case, loaded, plain_model
from tests.steering.injection.cases import close, expected, ids_of, log_probs, vector_on

few = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def test_placements_mixed_in_one_call(case: Case) -> None:
    ids, model = ids_of(9), case.model
    injections = [
        sl.Injection(vector_on(model, 1, 2, seed=1), "front"),
        sl.Injection(vector_on(model, 1, 1, seed=2), "all"),
        sl.Injection(vector_on(model, 1, 1, seed=3), "last"),
        sl.Injection(vector_on(model, 0, 3, seed=4), "mid"),
        sl.Injection(vector_on(model, 2, 9, seed=5), "back"),
        sl.Injection(vector_on(model, 2, 2, seed=6), -4),
    ]
    sums: dict[int, Tensor] = {}
    for one in injections:
        added = reference.placed(one.vector.values, one.placement, len(ids))
        sums[one.vector.layer] = sums.get(one.vector.layer, torch.zeros(())) + added
    with sl.steer(model, *injections) as receipts:
        close(log_probs(model, [ids])[0], reference.log_probs(case.hf, ids, sums))
    assert [r.applications for r in receipts] == [1] * 6


def test_placement_argument_and_injections(gpt2: Any) -> None:
    ids, vector = ids_of(7), vector_on(gpt2)
    with sl.steer(gpt2, vector.on("back")) as receipts:
        log_probs(gpt2, [ids])
    assert receipts[0].positions == (5, 6)
    with sl.steer(gpt2, vector.on("back"), sl.Injection(vector, 1), placement="mid") as receipts:
        log_probs(gpt2, [ids])
    assert [r.positions for r in receipts] == [(2, 3), (1, 2)]


@few
@given(
    pads=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4),
    placement=st.sampled_from(["front", "mid", "back", "all", 2]),
)
@example(pads=[(0, 0), (3, 2), (1, 0)], placement="mid")
def test_rows_padded_on_both_sides(case: Case, pads: list[tuple[int, int]], placement: Any) -> None:
    width = 11
    vector = vector_on(case.model, 1, 1 if placement == "all" else 2)
    rows = [ids_of(width - before - after, number) for number, (before, after) in enumerate(pads)]
    padded = [[0] * before + row + [0] * after for row, (before, after) in zip(rows, pads, strict=True)]
    mask = [[0] * before + [1] * (width - before - after) + [0] * after for before, after in pads]
    with sl.steer(case.model, vector, placement=placement):
        batch = log_probs(case.model, padded, mask)
    for row, (before, after), got in zip(rows, pads, batch, strict=True):
        close(got[before : width - after], expected(case.hf, row, vector, placement))


@pytest.mark.parametrize("tokenizer", ["plain", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_mixed_length_without_a_mask(kind: str, tokenizer: str) -> None:
    """TransformerLens pads on the right and makes no mask: what would go to padding is an error, the rest is right."""
    model, hf = loaded("gpt2", kind, tokenizer), plain_model("gpt2")
    texts = ["I went up to my friend and said", "I went"]
    rows = [model.to_tokens(text)[0].tolist() for text in texts]
    vector = vector_on(model, 1, 2)
    for placement in ("front", 1, "all", "prompt"):
        one = vector.at(0) if placement in reference.RANGES else vector
        with torch.no_grad(), sl.steer(model, one, placement=placement):
            for _ in range(2):
                got = model(texts).log_softmax(-1)
        for row, logits in zip(rows, got, strict=True):
            close(logits[: len(row)], expected(hf, row, one, placement))
    for placement in ("back", "mid", "last", "from_last", -1):
        one = vector.at(0)
        with (
            pytest.raises(sl.SteerlensError, match="came without attention_mask"),
            sl.steer(model, one, placement=placement),
        ):
            model(texts)
        with sl.steer(model, one, placement=placement):
            model([texts[0], texts[0]])
            model(texts[1])
    with pytest.raises(sl.SteerlensError, match="spans 5 positions but the prompt has 3"):  # noqa: SIM117
        with sl.steer(model, vector_on(model, 1, 5)):
            model(texts)


def test_rows_that_end_in_the_pad_token_are_asked_about_in_those_words(gpt2: Any) -> None:
    rows, vector = [[*ids_of(5), 0], [*ids_of(5, 1), 0]], vector_on(gpt2)
    with (
        pytest.raises(sl.SteerlensError, match=r"end in the pad token, which may be padding or .* pass attention_mask"),
        sl.steer(gpt2, vector, placement="back"),
    ):
        log_probs(gpt2, rows)
    with sl.steer(gpt2, vector, placement="back") as receipts:
        log_probs(gpt2, rows, [[1] * 6] * 2)
    assert receipts[0].positions == (4, 5)


@pytest.mark.parametrize("placement", ["all", "prompt"])
def test_bos_is_what_the_tokens_say(case: Case, placement: Any) -> None:
    """Not what a setting says: none, one, and two in front, alone, in a padded batch, and with the setting off."""
    model, was = case.model, case.model.cfg.default_prepend_bos
    rest, vector = ids_of(5)[1:], vector_on(case.model, 1, 1)
    rows = [[0] * n + rest for n in range(3)]
    wanted = [
        reference.log_probs(case.hf, row, {1: reference.placed(vector.values, placement, len(row), first=n)})
        for n, row in enumerate(rows)
    ]
    try:
        for model.cfg.default_prepend_bos in (False, True):
            with sl.steer(model, vector, placement=placement) as receipts:
                for row, expected_ in zip(rows, wanted, strict=True):
                    close(log_probs(model, [row])[0], expected_)
            assert receipts[0].positions == (0, 1, 2, 3)
            padded = [[7] * (6 - len(row)) + row for row in rows]
            mask = [[0] * (6 - len(row)) + [1] * len(row) for row in rows]
            with sl.steer(model, vector, placement=placement):
                batch = log_probs(model, padded, mask)
            for number, row in enumerate(rows):
                close(batch[number, 6 - len(row) :], wanted[number])
    finally:
        model.cfg.default_prepend_bos = was


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("bridge")])
def test_a_pass_that_starts_from_a_residual_stream(kind: str) -> None:
    model, hf, ids = loaded("gpt2", kind), plain_model("gpt2"), ids_of(6)
    vector = vector_on(model, 1, 2)
    with torch.no_grad(), sl.steer(model, vector, placement="back"):
        model(torch.tensor([ids]))
        resid = model(torch.tensor([ids, ids]), stop_at_layer=1)
        got = model(resid, start_at_layer=1).log_softmax(-1)
        close(got[0], expected(hf, ids, vector, "back"))


def test_masks_of_other_dtypes(gpt2: Any) -> None:
    rows, vector = [[0, 0, *ids_of(4)], ids_of(6, 1)], vector_on(gpt2)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    with torch.no_grad(), sl.steer(gpt2, vector, vector.at(0).on("all")):
        wanted = gpt2(torch.tensor(rows), attention_mask=mask)
        dtypes = [torch.int32] if not is_bridge(gpt2) else [torch.int32, torch.bool]
        for dtype in dtypes:
            close(gpt2(torch.tensor(rows), attention_mask=mask.to(dtype)), wanted)


def test_strings_and_single_rows(gpt2: Any) -> None:
    vector = vector_on(gpt2)
    with sl.steer(gpt2, vector):
        from_text = gpt2("I hate you because").detach()
        from_tokens = gpt2(gpt2.to_tokens("I hate you because")).detach()
    assert torch.equal(from_text, from_tokens)
