"""Trained vectors: the loss is what it says, descent lowers it, and the best is kept whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.steering.extraction import descent
from steerlens.steering.extraction.biased_runs import BiasedRuns, frozen, target_rows
from tests import reference
from tests.conftest import Case
from tests.steering.extraction.texts import CONTRAST, close, ids_of

TARGETS = ["I love this film", "They love to go", "We love all of it", "She will love you", "love it", "He loved her"]
PROMPTS = ["So", "And then", "But they said", "Now", "It was that", "Well"]


def said(case: Case, prompt: str, target: str, bias: torch.Tensor | None, layer: int) -> torch.Tensor:
    """log p of each token of the target after the prompt in the plain model, the bias at every position after BOS."""
    start = ids_of(prompt)
    end = ids_of(target)[1:]
    ids = [*start, *end]
    added = {} if bias is None else {layer: reference.placed(bias[None], "all", len(ids))}
    log_probs = reference.log_probs(case.hf, ids, added)
    return log_probs[torch.arange(len(start) - 1, len(ids) - 1), torch.tensor(end)]


def test_log_probabilities_under_a_bias_are_those_of_plain_pytorch(case: Case) -> None:
    runs = BiasedRuns(case.model, 1)
    biases = torch.randn(len(TARGETS), reference.D_MODEL, generator=torch.Generator().manual_seed(0))
    if case.centred:
        biases = biases - biases.mean(-1, keepdim=True)
    found = runs.log_probs(target_rows(case.model, TARGETS, PROMPTS), biases)
    wanted = [said(case, *texts, bias, 1).sum() for *texts, bias in zip(PROMPTS, TARGETS, biases, strict=True)]
    close(found.detach(), torch.stack(wanted))
    assert (runs.forward, runs.backward) == (len(TARGETS), 0)


def test_the_gradient_is_the_slope(any_model: Any) -> None:
    runs = BiasedRuns(any_model, 1)
    rows = target_rows(any_model, TARGETS[:2], PROMPTS[:2])
    bias, along = torch.randn(2, reference.D_MODEL, generator=torch.Generator().manual_seed(0))
    with frozen(any_model):
        leaf = bias.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(runs.log_probs(rows, leaf).sum(), leaf)
        up, down = (float(runs.log_probs(rows, bias + step * along).sum()) for step in (1e-2, -1e-2))
    assert float(slope @ along) == pytest.approx((up - down) / 2e-2, rel=1e-2)
    assert runs.backward == 2


@pytest.mark.parametrize("gradient", ["exact", "none"])
def test_the_targets_become_likelier_and_the_losses_are_true(case: Case, gradient: Any) -> None:
    vector = sl.trained(
        case.model, TARGETS, prompts=PROMPTS, layer=1, gradient=gradient, steps=4, lr=0.05, held_out=0, check_every=2
    )
    steps = dict(vector.source["losses"])
    assert steps[vector.source["steps"]] == min(steps.values()) < steps[0]
    for bias, wanted in ((None, steps[0]), (vector.values[0], steps[vector.source["steps"]])):
        log_probs = torch.cat([said(case, *texts, bias, 1) for texts in zip(PROMPTS, TARGETS, strict=True)])
        assert float(-log_probs.mean()) == pytest.approx(wanted, abs=1e-4)
    assert vector.placement == "all"
    cost = vector.source["cost"]
    # measuring the scale, the checks, and the steps: one row each, or two where the gradient is estimated
    checks = 6 * len(steps)
    assert cost["forward"] == 6 + checks + (24 if gradient == "exact" else 48)
    assert cost["backward"] == (24 if gradient == "exact" else 0)


def test_without_prompts_everything_that_steering_reaches_is_trained(any_model: Any) -> None:
    vector = sl.trained(any_model, TARGETS, layer=1, steps=5, held_out=0, lr=0.05)
    rows = target_rows(any_model, TARGETS, None)
    assert all((row.begin, row.end) == (2, len(row.ids)) for row in rows)
    assert vector.source["losses"][0][1] > min(loss for _, loss in vector.source["losses"])


def test_preferences_lower_the_loss_of_bipo(case: Case) -> None:
    beta = 0.5
    few = CONTRAST.sample(3)
    vector = sl.trained(case.model, few, layer=1, beta=beta, steps=5, lr=0.05, held_out=0)
    prompt = "I"  # what the texts of every pair have in common

    def gained(text: str) -> torch.Tensor:
        rest = text.removeprefix(prompt)
        return (said(case, prompt, rest, vector.values[0], 1) - said(case, prompt, rest, None, 1)).sum()

    margins = torch.stack([gained(p) - gained(m) for p, m in zip(few.positive, few.negative, strict=True)])
    losses = dict(vector.source["losses"])
    wanted = -torch.nn.functional.logsigmoid(beta * margins).mean()
    assert losses[vector.source["steps"]] == pytest.approx(float(wanted), abs=1e-4)
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[vector.source["steps"]] < losses[0]
    assert vector.source["objective"] == "preference"


def test_a_seed_gives_the_same_vector_and_leaves_the_world_alone(any_model: Any) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    needed = [weight.requires_grad for weight in any_model.parameters()]
    one, two, other = (sl.trained(any_model, TARGETS, layer=1, steps=4, seed=seed, lr=0.05) for seed in (1, 1, 2))
    assert torch.equal(one.values, two.values)
    assert not torch.equal(one.values, other.values)
    assert torch.equal(torch.get_rng_state(), before)
    assert [weight.requires_grad for weight in any_model.parameters()] == needed
    assert all(weight.grad is None for weight in any_model.parameters())


def test_it_stops_when_held_out_texts_gain_nothing(any_model: Any) -> None:
    vector = sl.trained(any_model, TARGETS, layer=1, steps=200, lr=0.5, patience=2, check_every=1)
    steps = [step for step, _ in vector.source["losses"]]
    assert steps[-1] == vector.source["steps"] + 2
    assert steps[-1] < 200


def test_an_interrupted_training_keeps_its_best(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = BiasedRuns.log_probs, []

    def log_probs(self: BiasedRuns, rows: Any, bias: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        if sum(calls) == 8:  # steps run with gradients, checks without
            raise KeyboardInterrupt
        return real(self, rows, bias)

    monkeypatch.setattr(BiasedRuns, "log_probs", log_probs)
    with pytest.warns(UserWarning, match="interrupted; keeping the vector of step"):
        vector = sl.trained(any_model, TARGETS, layer=1, steps=100, check_every=2, lr=0.05, held_out=0)
    assert vector.source["interrupted"]
    assert 0 < vector.source["steps"] <= 7
    calls[:] = [True] * 7
    with pytest.raises(KeyboardInterrupt):  # nothing to keep yet
        sl.trained(any_model, TARGETS, layer=1, steps=100)
    assert not any(weight.grad is not None for weight in any_model.parameters())


def test_the_two_point_estimate_is_the_gradient_on_average() -> None:
    slope = torch.randn(6, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    estimates = [
        descent._two_point(lambda vectors, step: vectors @ slope, torch.zeros(6), 2.0, 1, noise) for _ in range(4000)
    ]
    close(torch.stack(estimates).mean(0), 2.0 * slope, 0.15)


@pytest.mark.parametrize(
    ("targets", "options", "words"),
    [
        ([], {}, "targets must be a list of at least one text"),
        ("text", {}, "targets must be a list of at least one text"),
        (["one text"], {}, "one text cannot be trained and checked on"),
        (TARGETS, {"gradient": "some"}, "gradient='some' is unknown"),
        (TARGETS, {"steps": 0}, "steps must be a whole number of at least 1"),
        (TARGETS, {"lr": 0}, "lr must be a finite number above 0"),
        (TARGETS, {"held_out": 1}, "held_out must be a share from 0 to below 1"),
        (TARGETS, {"prompts": ["a"]}, "1 prompts for 6 targets"),
        (TARGETS, {"layer": 9}, "layer 9 is out of range"),
        (["a", "b"], {}, "has no token that steering reaches"),
        (["a", "x" * 200], {"prompts": "So"}, "tokens but the model reads 64"),
        (CONTRAST, {"prompts": "So"}, "brings its own contexts"),
        (sl.ContrastSet(["a b"], ["c d"], paired=False), {}, "preferences need pairs"),
        (sl.ContrastSet.of([("good day", "bad day")] * 2), {}, "differ in their first token"),
        (TARGETS, {"lr": 1e-9, "steps": 1, "held_out": 0}, "none of 1 steps improved on no vector"),
    ],
)
def test_bad_input_is_one_line(any_model: Any, targets: Any, options: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        sl.trained(any_model, targets, **{"layer": 1, **options})
    assert "\n" not in str(caught.value)
