"""Ramps: the strength at every position, against vectors put there one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.engine.sampling import sample
from steerlens.engine.sampling_settings import Sampling
from steerlens.steering.operations import OPERATIONS
from steerlens.steering.ramps import ramp_strengths
from tests import reference
from tests.conftest import Case
from tests.steering.sites.cases import close, expected, ids_of, injection_of, log_probs, vector_on


def strength(points: list[float], index: int, over: int) -> float:
    """Piecewise linear through the points, as numpy has it."""
    import numpy as np

    if over == 1:
        return points[-1]
    return float(np.interp(index, np.linspace(0, over - 1, len(points)), points)) if len(points) > 1 else points[0]


@pytest.mark.parametrize("points", [[0, 1], [1.0, 0.25, 2.0], [0.5], [0, 0, 1, 1, -1]])
@pytest.mark.parametrize("over", [None, 1, 2, 3, 5, 8])
def test_strengths_are_piecewise_linear(points: list[float], over: int | None) -> None:
    for count in (1, 4, 7):
        found = ramp_strengths(sl.Ramp(points, over=over), torch.arange(10), torch.full((10,), count))
        wanted = [strength(points, min(i, (over or count) - 1), over or count) for i in range(10)]
        assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_with_a_point_for_each_position_strengths_are_the_points() -> None:
    points = [0.1 * i * i for i in range(60)]
    found = ramp_strengths(sl.Ramp(points, over=60), torch.arange(60), torch.tensor(3).expand(60))
    assert found.tolist() == torch.tensor(points).tolist()


def one_by_one(injection: sl.Injection, length: int, total: int) -> list[sl.Injection]:
    """Additions with a ramp as additions at single positions."""
    vector, ramp = injection.vector, injection.ramp
    assert ramp is not None
    rows = reference.placed(torch.ones(vector.n_positions, 1), injection.placement, length, total=total)  # type: ignore[arg-type]
    touched = rows[:, 0].nonzero().flatten().tolist()
    over = ramp.over or len([at for at in touched if at < length])
    strengths = [strength(list(ramp.points), min(i, over - 1), over) for i in range(len(touched))]
    shift = torch.zeros(total, vector.values.shape[1])
    for number, (at, s) in enumerate(zip(touched, strengths, strict=True)):
        shift[at] = s * vector.values[min(number, vector.n_positions - 1)]
    return [sl.Injection(sl.SteeringVector(shift, vector.layer, vector.model, site=vector.site), "front")]


CASES = [
    ("all", 1, sl.Ramp([0, 1])),
    ("prompt", 1, sl.Ramp([0, 2, -1])),
    ("prompt", 1, sl.Ramp([1, 0], over=3)),
    ("generated", 1, sl.Ramp([1, 0], over=3)),
    ("from_last", 1, sl.Ramp([0.5, 1.5], over=4)),
    ("front", 3, sl.Ramp([0, 1])),
    ("back", 2, sl.Ramp([2, 0.5])),
    ("last", 1, sl.Ramp([0, 0.5])),
]


def test_scores_equal_additions_one_by_one(case: Case) -> None:
    """In one grid with rows of mixed length."""
    prompts, text = ["The dog ran", "Once upon a time there was a"], " and they were happy"
    conditions = [sl.Injection(vector_on(case.model, "resid_pre", 1, span), p, ramp=ramp) for p, span, ramp in CASES]
    frame = sl.score(case.model, [text] * 2, [*conditions], prompt=prompts)
    for row, prompt in enumerate(prompts):
        before = case.model.to_tokens(prompt)[0].tolist()
        for number, condition in enumerate(conditions):
            rows = frame[(frame.condition == number) & (frame.text_index == row)]
            after = rows.token_id.tolist()
            same = one_by_one(condition, len(before), len(before + after))
            wanted = expected(case.hf, before + after, *same)[range(len(before) - 1, len(before + after) - 1), after]
            close(torch.tensor(rows.logprob.values).float(), wanted)


@pytest.mark.parametrize("use_cache", [True, False])
def test_completions_and_steer(gpt2: Any, use_cache: bool) -> None:
    """What the engine draws, `generate` inside `steer` draws too, and one pass over it all gives the same tokens."""
    ids, n = ids_of(5, 3), 5
    for placement, span, ramp in CASES:
        one = sl.Injection(6 * vector_on(gpt2, "resid_pre", 1, span), placement, ramp=ramp)  # type: ignore[arg-type]
        sampling = Sampling(temperature=0, max_new_tokens=n, stop_at_end=False, n=1)
        done = sample(gpt2, [ids], [sl.Condition((one,))], sampling=sampling, use_cache=use_cache).tokens[0, 0, 0]
        with sl.steer(gpt2, one):
            out = gpt2.generate(
                torch.tensor([ids]), max_new_tokens=n, do_sample=False, use_past_kv_cache=use_cache,
                stop_at_eos=False, return_type="tokens", verbose=False,
            )  # fmt: skip
        assert out[0, 5:].tolist() == done.tolist()
        row = [*ids, *done.tolist()]
        with sl.steer(gpt2, *one_by_one(one, 5, len(row))):
            assert log_probs(gpt2, [row])[0, 4:-1].argmax(-1).tolist() == done.tolist()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_steer_in_padded_batches(gpt2: Any, operation: Any) -> None:
    """A ramp of one strength is that strength, full and none are with and without; engine and hooks agree."""
    rows = [ids_of(6), ids_of(4, 1)]
    padded = [[7, *row, *[7] * (7 - len(row))] for row in rows]
    mask = [[0, *[1] * len(row), *[0] * (7 - len(row))] for row in rows]
    for placement, span in (("prompt", 1), ("front", 2), ("last", 1)):
        plain = injection_of(vector_on(gpt2, "resid_mid", 1, span), operation, placement)
        ramped = {strength: replace(plain, ramp=sl.Ramp([strength])) for strength in (0.0, 1.0, 0.5)}
        found = {}
        for key, one in (("plain", plain), *ramped.items()):
            with sl.steer(gpt2, one):
                found[key] = log_probs(gpt2, padded, mask)
        close(found[1.0], found["plain"])
        if operation != "add_keep_norm":  # (there a zero row does nothing at all)
            close(found[0.0], log_probs(gpt2, padded, mask))
        grid = sl.next_token_logits(gpt2, [list(row) for row in rows], [ramped[0.5]]).log_softmax(-1)
        for number, row in enumerate(rows):
            close(grid[0, number], found[0.5][number, len(row)])
        if operation in ("add", "add_keep_norm", "reft"):
            with sl.steer(gpt2, 0.5 * plain):
                close(found[0.5], log_probs(gpt2, padded, mask))


def test_maps_show_the_strength(any_model: Any) -> None:
    vector = vector_on(any_model, "resid_pre", 1)
    frame = sl.token_map(any_model, "The dog ran home", sl.Injection(vector, "prompt", ramp=sl.Ramp([0, 1]))).frame
    n = len(frame) - 1
    assert frame.norm.tolist() == pytest.approx([0.0, *(vector.norm * i / (n - 1) for i in range(n))], rel=1e-5)


def test_titles_keys_and_what_is_no_ramp(any_model: Any) -> None:
    from steerlens.runs.run_keys import run_key

    vector = vector_on(any_model, "resid_pre", 1)
    one = sl.Injection(vector, "generated", ramp=sl.Ramp([1, 0], over=20))
    assert one.title == "vector, ramp 1 → 0 over 20"
    others = [sl.Injection(vector, "generated"), sl.Injection(vector, "generated", ramp=sl.Ramp([1, 0], over=21))]
    assert len({run_key(sl.Condition((x,)), job="") for x in (one, *others)}) == 3
    for make, words in (
        (lambda: sl.Ramp([]), "points is empty"),
        (lambda: sl.Ramp([0, float("nan")]), "finite number"),
        (lambda: sl.Ramp([0, 1], over=0), "over must be a whole number of at least 1"),
        (lambda: sl.Injection(vector, "generated", ramp=sl.Ramp([0, 1])), "has no end"),
        (lambda: sl.Injection(vector, "all", ramp=sl.Ramp([0, 1], over=3)), "goes over the prompt"),
        (lambda: sl.Injection(vector, ramp=0.5), "ramp must be a Ramp"),  # type: ignore[arg-type]
    ):
        with pytest.raises(sl.SteerlensError, match=words):
            make()
