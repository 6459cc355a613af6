"""What scoring leaves to its caller: hooks, the random state, ordinary tensors, and one line for what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import steerlens as sl
from steerlens.engine.reductions import reduce_next_tokens
from steerlens.models import resid_pre_hook
from steerlens.steering.conditions import as_condition
from steerlens.steering.prompts import prompt_ids
from tests.conftest import Case, live_hooks, plain_model
from tests.engine.scoring.cases import PROMPTS, assert_same, plain_logits, vector


def test_the_caller_s_hooks_act_as_in_a_plain_call(case: Case) -> None:
    model, v = case.model, vector(case.model, 1, 2, 1)
    outer = vector(case.model, 0, 1, 2, 2.0, "back")
    shapes = set()

    def halve_last(resid: Tensor, hook: Any) -> Tensor:
        resid = resid.clone()
        resid[:, -1] *= 0.5  # the last position by its place in the tensor: right only without padding
        return resid

    def look(resid: Tensor, hook: Any) -> None:
        shapes.add(resid.shape[1:])

    prompts = list(PROMPTS)
    with sl.steer(model, outer), model.hooks(fwd_hooks=[(resid_pre_hook(2), halve_last), (resid_pre_hook(2), look)]):
        steered = sl.next_token_logits(model, prompts, [None, v])
        texts = sl.score(model, prompts, [None, v])
        expected = []
        for one in (None, v):
            for prompt in prompts:
                ids = prompt_ids(model, prompt)
                expected.append(plain_logits(model, ids, as_condition(one)))
    last = torch.stack([logits[-1] for logits in expected])
    assert_same(steered.flatten(0, 1), last)
    sums = texts.groupby(["condition", "text_index"]).logprob.sum().tolist()
    for total, logits, prompt in zip(sums, expected, prompts * 2, strict=True):
        ids = prompt_ids(model, prompt)
        assert total == pytest.approx(float(logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum()), abs=1e-3)
    assert shapes == {(len(prompt_ids(model, prompt)), model.cfg.d_model) for prompt in prompts}


def test_hooks_go_and_the_caller_s_stay(case: Case) -> None:
    model = case.model
    seen = []
    sl.next_token_logits(model, "The dog", vector(model, 1))  # a bridge puts hooks of its own in its first pass
    with model.hooks(fwd_hooks=[(resid_pre_hook(1), lambda resid, hook: seen.append(1))]):
        before = live_hooks(model)
        sl.next_token_logits(model, "The dog", [vector(model, 1), None])
        with pytest.raises(sl.SteerlensError, match="vector spans 9 positions"):
            sl.next_token_logits(model, "The dog", vector(model, 1, 9))
        assert live_hooks(model) == before
    assert seen


def test_what_does_not_fit_is_said_in_one_line(any_model: Any) -> None:
    v = vector(any_model, 1)
    ask = sl.next_token_logits
    cases: list[tuple[Any, str]] = [
        (lambda: ask(any_model, "The dog", v, batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
        (lambda: ask(any_model, "The dog", v, memory_budget=1000), "does not hold one row of 3 tokens"),
        (lambda: ask(any_model, [], v), "the list of prompts is empty"),
        (lambda: ask(any_model, "", v), "the prompt is empty"),
        (lambda: ask(any_model, "The dog", []), "the list of conditions is empty"),
        (lambda: ask(any_model, ["Once upon a time", "I"], vector(any_model, 1, 3)), "vector spans 3 .* has 2 tokens"),
        (lambda: ask(any_model, "The dog", vector(any_model, 1, 2), placement="last"), "takes a vector of 1 position"),
        (lambda: ask(any_model, "The dog", v, placement=-4), "use an index from -3 to 2"),
        (lambda: ask(plain_model("gpt2"), "The dog", v), "expected a HookedTransformer or TransformerBridge"),
        (lambda: sl.score(any_model, ""), "nothing to be predicted from"),
        (lambda: sl.score(any_model, ["a", ""], prompt="The"), "a text is empty"),
        (lambda: sl.score(any_model, [" a", " b"], prompt=["The"]), "1 prompts for 2 texts"),
        (lambda: sl.score(any_model, " dog" * 50, prompt="The dog" * 20), "do not fit the model's context of 64"),
        (lambda: reduce_next_tokens(any_model, "I", [v], base=1), "base=1 is no index into 1 conditions"),
        (lambda: reduce_next_tokens(any_model, "I", [v], top_k=3), "give base="),
        (
            lambda: reduce_next_tokens(any_model, "I", [v], base=0, top_k=9000),
            "top_k must be a whole number from 1 to 8200",
        ),
        (lambda: reduce_next_tokens(any_model, "I", [v], ranks=True), "give targets="),
        (lambda: reduce_next_tokens(any_model, "I", [v], targets=[8200]), "token 8200"),
        (lambda: reduce_next_tokens(any_model, "I", [v], targets=[[1], [2]]), "2 rows for 1 prompts"),
        (lambda: reduce_next_tokens(any_model, "I", [v], sets=[[1], []]), "a set of tokens is empty"),
        (lambda: reduce_next_tokens(any_model, "I", [v], positions="some"), "positions must be"),  # type: ignore[arg-type]
    ]
    for ask_for, message in cases:
        with pytest.raises(sl.SteerlensError, match=message) as raised:
            ask_for()
        assert "\n" not in str(raised.value)


def test_results_are_ordinary_and_the_random_state_is_the_caller_s(gpt2: Any) -> None:
    state = torch.get_rng_state()
    logits = sl.next_token_logits(gpt2, "The dog", vector(gpt2, 1))
    found = reduce_next_tokens(gpt2, "The dog", [None, vector(gpt2, 1)], base=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    for tensor in (logits, found.kl):
        assert tensor is not None
        assert not tensor.is_inference()
        assert not tensor.requires_grad
        tensor += 1
