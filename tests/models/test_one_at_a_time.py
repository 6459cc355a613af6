"""Threads that share a model: each gets what it would get alone; and what is steered cannot be copied."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import for_one_thread, one_at_a_time
from tests.conftest import live_hooks

PROMPT = "I went up to my friend and said"


def test_threads_get_what_they_would_get_alone(gpt2: Any) -> None:
    vectors = [coeff * sl.actadd(gpt2, " love", " hate", layer=1) for coeff in (-40, 0, 40, 80)]

    def logits(vector: sl.SteeringVector) -> torch.Tensor:
        return sl.next_token_logits(gpt2, PROMPT, vector)

    def steered(vector: sl.SteeringVector) -> torch.Tensor:
        with torch.no_grad(), sl.steer(gpt2, vector):
            return gpt2(gpt2.to_tokens(PROMPT))[0, -1]

    alone = [(logits(vector), steered(vector)) for vector in vectors]
    before = live_hooks(gpt2)
    with ThreadPoolExecutor(8) as pool:
        jobs = [(pool.submit(logits, v), pool.submit(steered, v)) for v in vectors * 3]
        found = [(one.result(timeout=300), other.result(timeout=300)) for one, other in jobs]
    for (one, other), (right, also) in zip(found, alone * 3, strict=True):
        torch.testing.assert_close(one, right)
        torch.testing.assert_close(other, also)
    assert live_hooks(gpt2) == before


def test_a_block_may_be_nested_and_left_by_another_thread() -> None:
    class Model:
        pass

    model, free = Model(), threading.Event()
    with one_at_a_time(model), one_at_a_time(model):
        waiting = threading.Thread(target=for_one_thread(lambda model: free.set()), args=(model,))
        waiting.start()
        assert not free.wait(0.05)
    assert free.wait(60)
    waiting.join()
    with pytest.raises(KeyError), one_at_a_time(model):
        raise KeyError
    assert for_one_thread(lambda model: model)(model) is model
    assert for_one_thread(lambda model: model)(None) is None


def test_a_steered_model_is_not_copied(gpt2: Any) -> None:
    vector = sl.actadd(gpt2, " love", " hate", layer=1)
    with sl.steer(gpt2, vector):
        with torch.no_grad():
            gpt2(gpt2.to_tokens(PROMPT))
        for copied in (gpt2, gpt2.blocks[1]):
            with pytest.raises(sl.SteerlensError, match="copy it outside the with block"):
                copy.deepcopy(copied)
        with pytest.raises(Exception):  # noqa: B017, PT011  (hooks are functions, which do not pickle either)
            pickle.dumps(gpt2)
    other = copy.deepcopy(gpt2)
    assert live_hooks(other) == live_hooks(gpt2)
