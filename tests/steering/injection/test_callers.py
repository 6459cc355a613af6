"""`steer` in the hands of odd callers: nothing to steer, nested blocks, hooks of their own, threads."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import steerlens as sl
from tests import reference
from tests.conftest import live_hooks, plain_model
from tests.steering.injection.cases import D, close, expected, ids_of, log_probs, vector_on


def test_no_vectors_is_no_steering(model: Any) -> None:
    ids = ids_of(5)
    base = log_probs(model, [ids])
    for nothing in ((), (None,), ((),), (sl.Condition(),)):
        with sl.steer(model, *nothing) as receipts:  # type: ignore[arg-type]
            assert torch.equal(log_probs(model, [ids]), base)
        assert receipts == []
    with sl.steer(model):
        pass


@pytest.mark.parametrize("thing", [5, "love", torch.ones(2, D), {"a": 1}])
def test_things_that_steer_nothing(any_model: Any, thing: Any) -> None:
    before = live_hooks(any_model)
    with pytest.raises(sl.SteerlensError, match="expected a SteeringVector"), sl.steer(any_model, thing):
        pytest.fail("the block must not be entered")
    assert live_hooks(any_model) == before


def test_a_list_of_conditions_is_too_many(any_model: Any) -> None:
    vector = vector_on(any_model)
    with pytest.raises(sl.SteerlensError, match=r"SteeringVector, .*got \["), sl.steer(any_model, [vector, vector]):  # type: ignore[arg-type]
        pytest.fail("the block must not be entered")
    with sl.steer(any_model, (vector, vector)) as receipts:  # type: ignore[arg-type]
        log_probs(any_model, [ids_of(4)])
    assert len(receipts) == 2


@pytest.mark.parametrize("placement", ["nowhere", 1.5, True, ["front"]])
def test_a_placement_that_is_none(any_model: Any, placement: Any) -> None:
    with (
        pytest.raises(sl.SteerlensError, match="is unknown; use one of"),
        sl.steer(any_model, vector_on(any_model), placement=placement),
    ):
        pytest.fail("the block must not be entered")


def test_one_bad_vector_among_good_ones_leaves_nothing(any_model: Any) -> None:
    good = vector_on(any_model)
    before = live_hooks(any_model)
    with pytest.raises(sl.SteerlensError), sl.steer(any_model, good, "bad"):  # type: ignore[arg-type]
        pass
    assert live_hooks(any_model) == before


def test_nested_blocks_end_in_any_order(gpt2: Any) -> None:
    hf, ids = plain_model("gpt2"), ids_of(6)
    a, b = vector_on(gpt2, 1, 2, seed=1), vector_on(gpt2, 2, 2, seed=2)
    base = log_probs(gpt2, [ids])
    first, second = sl.steer(gpt2, a), sl.steer(gpt2, b)
    first.__enter__()
    second.__enter__()
    both = log_probs(gpt2, [ids])[0]
    close(both, reference.log_probs(hf, ids, {1: a.values, 2: b.values}))
    first.__exit__(None, None, None)  # the outer one first
    close(log_probs(gpt2, [ids])[0], expected(hf, ids, b))
    second.__exit__(None, None, None)
    assert torch.equal(log_probs(gpt2, [ids]), base)
    assert "generate" not in gpt2.__dict__


def test_nested_blocks_and_generation_without_cache(gpt2: Any) -> None:
    hf, ids = plain_model("gpt2"), ids_of(6, 3)
    a, b = vector_on(gpt2, 1, 2, seed=1, scale=8), vector_on(gpt2, 2, 1, seed=2, scale=8)

    def additions(total: int) -> dict[int, Tensor]:
        return {
            1: reference.placed(a.values, "back", 6, total=total),
            2: reference.placed(b.values, "last", 6, total=total),
        }

    wanted = reference.greedy(hf, ids, 5, additions)
    with sl.steer(gpt2, a, placement="back"), sl.steer(gpt2, b, placement="last"):
        for cache in (True, False):
            out = gpt2.generate(
                torch.tensor([ids]),
                max_new_tokens=5,
                do_sample=False,
                use_past_kv_cache=cache,
                stop_at_eos=False,
                return_type="tokens",
                verbose=False,
            )
            assert out[0, 6:].tolist() == wanted


def test_steer_as_a_decorator(gpt2: Any) -> None:
    vector, ids = vector_on(gpt2), ids_of(5)

    @sl.steer(gpt2, vector)
    def run() -> Tensor:
        return log_probs(gpt2, [ids])[0]

    for _ in range(2):
        close(run(), expected(plain_model("gpt2"), ids, vector))


def test_the_users_hooks_see_the_stream_in_their_order(gpt2: Any) -> None:
    """Hooks set before the block run before the addition, hooks set inside run after it."""
    vector, ids, name, seen = vector_on(gpt2), torch.tensor([ids_of(5)]), "blocks.1.hook_resid_pre", {}

    def see(text: str) -> Any:
        return lambda resid, hook: seen.__setitem__(text, resid.clone())

    try:
        gpt2.add_hook(name, see("before"))
        with sl.steer(gpt2, vector):
            gpt2.run_with_hooks(ids, fwd_hooks=[(name, see("inside"))])
    finally:
        gpt2.reset_hooks()
    close((seen["inside"] - seen["before"])[0, :2], vector.values)


def test_a_users_generate_of_their_own_survives(gpt2: Any) -> None:
    mine = lambda *args, **kwargs: "mine"  # noqa: E731
    gpt2.__dict__["generate"] = mine
    try:
        with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(gpt2, vector_on(gpt2)):
            assert gpt2.generate("x") == "mine"
        assert gpt2.__dict__["generate"] is mine
    finally:
        del gpt2.__dict__["generate"]


def test_a_steered_model_is_not_copied(any_model: Any) -> None:
    """A copy would stay steered for ever, so copying is refused; the original comes to no harm."""
    ids = ids_of(5)
    base = log_probs(any_model, [ids])
    with sl.steer(any_model, vector_on(any_model)):
        log_probs(any_model, [ids])
        with pytest.raises(sl.SteerlensError, match="copy it outside the with block"):
            copy.deepcopy(any_model)
    assert torch.equal(log_probs(any_model, [ids]), base)


def test_threads_that_wait_for_each_other(any_model: Any) -> None:
    results = []

    def work() -> None:
        with sl.steer(any_model, vector_on(any_model)):
            results.append(log_probs(any_model, [ids_of(5)]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    assert torch.equal(*results)
