"""The engine at every site with every operation: grids, scores and completions equal plain PyTorch hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.engine.sampling import sample
from steerlens.engine.sampling_settings import Sampling
from steerlens.models import SITES
from steerlens.steering.operations import OPERATIONS
from tests.conftest import Case
from tests.steering.sites.cases import (
    LAYERS,
    PROMPTS,
    close,
    comparable,
    expected,
    ids_of,
    injection_of,
    sites_of,
    vector_on,
)


def grid(case: Case, layers: Any = range(LAYERS)) -> list[Any]:
    """Every site × operation, at several layers and placements, several at one place, and none."""
    conditions: list[Any] = [None]
    number = 0
    for site in sites_of(case):
        for operation in OPERATIONS:
            if comparable(case, site, operation):
                placement, span = [("all", 1), ("front", 2), ("last", 1), ("prompt", 1)][number % 4]
                layer = list(layers)[number % len(layers)]
                conditions.append(injection_of(vector_on(case.model, site, layer, span), operation, placement))
                number += 1
    conditions.append(tuple(conditions[1:7]))
    # The order counts where something is read.
    add, ablate = (
        injection_of(vector_on(case.model, "resid_post", 1, seed=s), o) for s, o in ((4, "add"), (5, "ablate"))
    )
    conditions += [(add, ablate), (ablate, add)]
    return conditions


def parts_of(condition: Any) -> tuple[sl.Injection, ...]:
    return () if condition is None else condition if isinstance(condition, tuple) else (condition,)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_grids_equal_plain_hooks(case: Case, batch_size: int | None) -> None:
    conditions = grid(case)
    found = sl.next_token_logits(case.model, PROMPTS, conditions, batch_size=batch_size).log_softmax(-1)
    for p, prompt in enumerate(PROMPTS):
        ids = case.model.to_tokens(prompt)[0].tolist()
        for c, condition in enumerate(conditions):
            close(found[c, p], expected(case.hf, ids, *parts_of(condition))[-1])


def test_grids_under_the_users_own_hooks(case: Case) -> None:
    """Then all rows run from the first block to the last, in the model's own forward pass."""
    conditions = grid(case)[::4]
    calls: list[int] = []
    with case.model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: calls.append(len(x)))]):
        hooked = sl.next_token_logits(case.model, PROMPTS[0], conditions)
    close(hooked, sl.next_token_logits(case.model, PROMPTS[0], conditions))
    assert calls


def test_scores_equal_plain_hooks(case: Case) -> None:
    text = " and they were happy"
    conditions = [c for c in grid(case) if c is not None][::3]
    frame = sl.score(case.model, text, conditions, prompt=PROMPTS[0])
    before = case.model.to_tokens(PROMPTS[0])[0].tolist()
    for number, condition in enumerate(conditions):
        rows = frame[frame.condition == number]
        after = rows.token_id.tolist()
        wanted = expected(case.hf, before + after, *parts_of(condition), prompt=len(before))
        wanted = wanted[range(len(before) - 1, len(before + after) - 1), after]
        close(torch.tensor(rows.logprob.values).float(), wanted)


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_completions_equal_plain_hooks(case: Case, use_cache: bool) -> None:
    ids, n = ids_of(5, 3), 4
    conditions = [c for c in grid(case) if c is not None][::2]
    done = sample(
        case.model,
        [ids],
        [sl.Condition(parts_of(c)) for c in conditions],
        sampling=Sampling(temperature=0, max_new_tokens=n, stop_at_end=False, n=1),
        use_cache=use_cache,
    )
    for number, condition in enumerate(conditions):
        row = list(ids)
        for token in done.tokens[number, 0, 0].tolist():
            logits = expected(case.hf, row, *parts_of(condition), prompt=len(ids))[-1]
            # (two tokens may be a rounding apart)
            assert logits[token] > logits.max() - 1e-4
            row.append(token)
        assert all(receipt.applications for receipt in done.receipts[number])


def test_generation_in_steer_equals_that_of_the_engine(gpt2: Any) -> None:
    ids, n = ids_of(5, 3), 4
    for site in SITES:
        one = injection_of(vector_on(gpt2, site, 1, size=6.0), "add_keep_norm")  # type: ignore[arg-type]
        done = sample(
            gpt2, [ids], [sl.Condition((one,))], sampling=Sampling(temperature=0, max_new_tokens=n, stop_at_end=False)
        )
        for cache in (True, False):
            with sl.steer(gpt2, one):
                out = gpt2.generate(
                    torch.tensor([ids]), max_new_tokens=n, do_sample=False, use_past_kv_cache=cache,
                    stop_at_eos=False, return_type="tokens", verbose=False,
                )  # fmt: skip
            assert out[0, len(ids) :].tolist() == done.tokens[0, 0, 0].tolist()
