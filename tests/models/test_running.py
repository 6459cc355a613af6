"""What differs between the model classes: where a pass stands, key-value caches, live hooks, the last norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.errors import SteerlensError
from steerlens.models import (
    decode_logits,
    expand_cache,
    final_logits,
    fingerprint,
    forward_states,
    keep_cache_rows,
    prefill,
    require_model,
    resid_pre_hook,
    without_live_hooks,
)
from tests import reference
from tests.conftest import KINDS, VOCAB, Case, hooks_removed, live_hooks, loaded, some_cases

few = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def rows_of(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [[0, *torch.randint(1, VOCAB - 10, (n - 1,), generator=generator).tolist()] for n in lengths]


def left(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return tokens, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def close(logits: Tensor, expected: Tensor) -> None:
    assert_close(logits.log_softmax(-1), expected, rtol=1e-5, atol=5e-5)


# --------------------------------------------------------------------------------------------------- prefill and decode


@few
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@torch.no_grad()
def test_prefill_and_decode_equal_whole_passes_row_by_row(case: Case, lengths: list[int]) -> None:
    rows = rows_of(lengths)
    tokens, mask = left(rows)
    logits, cache = prefill(case.model, tokens, mask)
    assert logits.shape == (len(rows), VOCAB)
    for step in range(3):
        for row, got in zip(rows, logits, strict=True):
            close(got, reference.log_probs(case.hf, row)[-1])
        new = [(7 + 13 * step + number) % VOCAB for number in range(len(rows))]
        new[0] = 0  # EOS = PAD = BOS: a real token all the same
        rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
        mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=mask.dtype)], 1)
        logits = decode_logits(case.model, torch.tensor(new)[:, None], mask, cache)


@torch.no_grad()
def test_prefill_without_cache(case: Case) -> None:
    rows = rows_of([5, 2])
    logits, cache = prefill(case.model, *left(rows), use_cache=False)
    assert cache is None
    for row, got in zip(rows, logits, strict=True):
        close(got, reference.log_probs(case.hf, row)[-1])


@torch.no_grad()
def test_expanded_and_selected_caches_keep_their_rows(case: Case) -> None:
    rows = rows_of([6, 3, 4])
    tokens, mask = left(rows)
    _, cache = prefill(case.model, tokens, mask)
    cache = expand_cache(cache, 2)
    order = torch.tensor([5, 0, 3])  # rows 2, 0 and 1
    cache = keep_cache_rows(cache, order)
    new = [8, 9, 10]
    picked = [rows[2], rows[0], rows[1]]
    grown = torch.cat([mask[[2, 0, 1]], torch.ones(3, 1, dtype=mask.dtype)], 1)
    logits = decode_logits(case.model, torch.tensor(new)[:, None], grown, cache)
    for row, token, got in zip(picked, new, logits, strict=True):
        close(got, reference.log_probs(case.hf, [*row, token])[-1])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_prefill_and_decode_in_half_precision(kind: str) -> None:
    for architecture in ("gpt2", "llama"):
        model = loaded(architecture, kind, dtype="bfloat16")
        tokens, mask = left(rows_of([5, 3]))
        logits, cache = prefill(model, tokens, mask)
        grown = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], 1)
        decoded = decode_logits(model, torch.tensor([[5], [6]]), grown, cache)
        assert logits.dtype == decoded.dtype == torch.bfloat16
        whole, _ = prefill(model, torch.cat([tokens, torch.tensor([[5], [6]])], 1), grown)
        assert (decoded.float() - whole.float()).abs().mean() < 0.15


@pytest.mark.skipif("hooked" not in KINDS, reason="TransformerLens 4 has no HookedTransformer")
@some_cases(lambda architecture, kind: kind.startswith("hooked"))  # a bridge does not hand out its last residual
@torch.no_grad()
def test_final_logits_are_what_the_model_makes_of_its_last_residual(case: Case) -> None:
    tokens = torch.tensor(rows_of([6]))
    last = case.model(tokens, stop_at_layer=reference.N_LAYERS)
    for rows in (last, last[:, -1], last[0, 0]):
        got = final_logits(case.model, rows)
        assert got.shape == (*rows.shape[:-1], VOCAB)
    assert_close(final_logits(case.model, last), case.model(tokens), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ where a pass is


@torch.no_grad()
def test_the_state_of_a_pass_is_known_inside_a_hook(case: Case) -> None:
    model, seen = case.model, []
    tokens, mask = left(rows_of([5, 3]))
    before = live_hooks(model)
    with forward_states(model, [1, 2]) as state_at:

        def look(resid: Tensor, hook: Any) -> None:
            seen.append((resid.shape[1], state_at(1)))

        with model.hooks(fwd_hooks=[(resid_pre_hook(1), look)]):
            model(tokens)
            model(tokens, attention_mask=mask)
            _, cache = prefill(model, tokens, mask)
            grown = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], 1)
            decode_logits(model, tokens[:, :1], grown, cache)
            model(tokens)
    assert live_hooks(model) == before
    assert [(width, state.offset) for width, state in seen] == [(5, 0), (5, 0), (5, 0), (1, 5), (5, 0)]
    masks = [state.attention_mask for _, state in seen]
    assert masks[0] is None
    assert masks[4] is None
    assert torch.equal(masks[1], mask)
    assert torch.equal(masks[2], mask)
    assert torch.equal(masks[3], grown)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_stays_when_the_block_fails(kind: str) -> None:
    model = loaded("gpt2", kind)
    before = live_hooks(model)
    with pytest.raises(KeyboardInterrupt), forward_states(model, [0, 1]):
        raise KeyboardInterrupt
    assert live_hooks(model) == before


# --------------------------------------------------------------------------------------------------------- live hooks


def test_live_hooks_are_off_inside_and_back_in_order_after(case: Case) -> None:
    model, calls = case.model, []

    def note(text: str) -> Any:
        return lambda resid, hook: calls.append(text)

    tokens = torch.tensor(rows_of([4]))
    with hooks_removed(model):
        for text in "abc":
            model.add_hook(resid_pre_hook(1), note(text), is_permanent=text == "b")
        point = model.hook_dict[resid_pre_hook(1)]
        before = list(point.fwd_hooks)
        with pytest.raises(KeyboardInterrupt), without_live_hooks(model):  # noqa: PT012
            model(tokens)
            assert calls == []
            model.run_with_cache(tokens)
            assert calls == []
            raise KeyboardInterrupt
        assert list(point.fwd_hooks) == before
        model(tokens)
        assert calls == ["a", "b", "c"]
        before[1].hook.remove()  # a handle from before still takes its hook off
        calls.clear()
        model(tokens)
        assert calls == ["a", "c"]
        with without_live_hooks(model), without_live_hooks(model):
            model(tokens)
        model(tokens)
        assert calls == ["a", "c", "a", "c"]


def test_what_a_bridge_hooks_on_itself_is_left_alone(case: Case) -> None:
    """The OPT bridge of TransformerLens 4 passes tensors on by permanent hooks of its own."""
    before = live_hooks(case.model)
    with without_live_hooks(case.model):
        assert live_hooks(case.model) == before
    assert fingerprint(case.model) == fingerprint(case.model)
    with hooks_removed(case.model):
        case.model.add_hook(resid_pre_hook(0), lambda resid, hook: None, is_permanent=True)
        with pytest.raises(SteerlensError, match="hooks of yours"):
            fingerprint(case.model)


# --------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("thing", [None, "demo", 3, torch.nn.Linear(2, 2), object()])
def test_require_model_refuses_what_is_none(thing: Any) -> None:
    with pytest.raises(SteerlensError, match=r"expected a HookedTransformer or TransformerBridge, got .*load_model"):
        require_model(thing)


def test_every_entrance_wants_a_model(any_model: Any) -> None:
    vector = sl.actadd(any_model, "Love", "Hate", layer=1)
    for enter in (
        lambda: sl.actadd("demo", "a", "b", layer=0),  # type: ignore[call-overload]
        lambda: sl.mean_difference(None, ["a"], ["b"], layer=0),  # type: ignore[call-overload]
        lambda: sl.steer(torch.nn.Linear(2, 2), vector).__enter__(),  # type: ignore[arg-type]
    ):
        with pytest.raises(SteerlensError, match="expected a HookedTransformer or TransformerBridge"):
            enter()


@pytest.mark.skipif("hooked" not in KINDS, reason="TransformerLens 4 has no HookedTransformer")
def test_a_hooked_transformer_on_several_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", "hooked")
    monkeypatch.setattr(model.cfg, "n_devices", 2)
    with pytest.raises(SteerlensError, match="spread over 2 devices"):
        require_model(model)
