"""LoReFT of rank 1: the edit is its formula on the plain model, descent lowers the loss, and the edit travels."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.demo import topic_contrast
from steerlens.models import SITES
from steerlens.steering.extraction.biased_runs import BiasedRuns, frozen
from steerlens.steering.extraction.objectives import Likelihood, items_of
from steerlens.steering.extraction.reft import _start, _table
from steerlens.steering.operations import change
from tests import reference
from tests.conftest import Case
from tests.steering.extraction.test_trained import PROMPTS, TARGETS
from tests.steering.extraction.texts import CONTRAST, close, ids_of
from tests.steering.sites.cases import HEADS

QUICK: dict[str, Any] = {"layer": 1, "steps": 6, "lr": 0.05, "held_out": 0, "check_every": 2, "progress": False}


def loreft(edit: sl.Injection, strength: float = 1.0) -> Any:
    """x + c R(w·x + b − R·x) at every position after BOS."""
    assert edit.reads is not None
    assert edit.value is not None
    R, b = edit.vector.values[0], edit.value
    w = edit.reads.values[0] + R

    def changed(x: torch.Tensor) -> torch.Tensor:
        made = x + strength * torch.outer(x @ w + b - x @ R, R)
        return torch.cat([x[:1], made[1:]])

    return edit.vector.layer, edit.vector.site, changed


def said(case: Case, prompt: str, target: str, *changes: Any) -> torch.Tensor:
    """log p of each token of the target after the prompt in the plain model."""
    start, end = ids_of(prompt), ids_of(target)[1:]
    log_probs = reference.changed_log_probs(case.hf, [*start, *end], list(changes))
    return log_probs[torch.arange(len(start) - 1, len(start) + len(end) - 1), torch.tensor(end)]


def test_the_targets_become_likelier_and_the_losses_are_those_of_the_formula(case: Case) -> None:
    edit = sl.reft(case.model, TARGETS, prompts=PROMPTS, **QUICK)
    losses = dict(edit.vector.source["losses"])
    best = edit.vector.source["steps"]
    assert losses[best] == min(losses.values()) < losses[0]
    if not case.centred:  # (a centred model's numbers are for a stream without its mean)
        for changes, wanted in (([], losses[0]), ([loreft(edit)], losses[best])):
            log_probs = torch.cat([said(case, *texts, *changes) for texts in zip(PROMPTS, TARGETS, strict=True)])
            assert float(-log_probs.mean()) == pytest.approx(wanted, abs=1e-4)
    assert edit.operation == "reft"
    assert edit.placement == "all"
    assert float(edit.vector.norm) == pytest.approx(1.0, abs=1e-5)
    # measuring the scale, the direction to begin with, the checks, and the steps
    checks = 6 * len(losses)
    assert edit.vector.source["cost"] == {"forward": 12 + checks + 36, "backward": 42}


def test_preferences_lower_the_loss_of_bipo(case: Case) -> None:
    few = CONTRAST.sample(3)
    edit = sl.reft(case.model, few, beta=0.5, **QUICK)
    losses = dict(edit.vector.source["losses"])
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[edit.vector.source["steps"]] < losses[0]
    assert edit.vector.source["objective"] == "preference"
    # What the edit is worth in steering is what the trainer said.
    gained = []
    for texts in zip(few.positive, few.negative, strict=True):
        rest = [text.removeprefix("I") for text in texts]
        sums = sl.score(case.model, rest, [None, edit], prompt="I").groupby(["text", "condition"]).logprob.sum()
        yes, no = (sums[text, 1] - sums[text, 0] for text in rest)
        gained.append(yes - no)
    wanted = -torch.nn.functional.logsigmoid(0.5 * torch.tensor(gained)).mean()
    assert losses[edit.vector.source["steps"]] == pytest.approx(float(wanted), abs=1e-4)


def test_the_gradient_is_the_slope(any_model: Any) -> None:
    """Of all that is trained: the direction, what is read, and the bias."""
    unit, generator = 0.7, torch.Generator().manual_seed(0)
    start = _start(torch.randn(reference.D_MODEL, generator=generator), unit)
    numbers = start + unit * torch.randn(len(start), generator=generator)
    along = torch.randn(len(start), generator=generator)
    items = items_of(any_model, TARGETS[:2], PROMPTS[:2])
    runs = BiasedRuns(any_model, 1, edit=lambda x, given: x + change(x, _table(given, unit), "read"))
    objective = Likelihood(runs, 0.1, 0)
    with frozen(any_model):
        leaf = numbers.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(objective.loss(items, leaf, 1), leaf)
        up, down = (float(objective.loss(items, numbers + step * along, 1)) for step in (2e-3, -2e-3))
    assert float(slope @ along) == pytest.approx((up - down) / 4e-3, rel=2e-2)


def test_it_begins_with_an_edit_that_does_nothing(any_model: Any) -> None:
    start = _start(torch.randn(reference.D_MODEL, generator=torch.Generator().manual_seed(0)), 0.3)
    x = torch.randn(5, reference.D_MODEL)
    assert not change(x, _table(start, 0.3), "read").any()
    assert float(_table(start, 0.3).values.norm()) == pytest.approx(1.0, abs=1e-5)


def test_held_out_texts_of_a_topic_become_likelier_on_the_embedded_model() -> None:
    model = sl.load_model("demo")
    about, other = topic_contrast("weddings")
    edit = sl.reft(model, about[:3], layer=4, steps=5, held_out=0, progress=False)
    frame = sl.score(model, about[3:], [None, 0.0 * edit, 0.5 * edit, edit])
    means = frame[frame.position > 1].groupby("condition").logprob.mean()
    assert means[1] == means[0]
    assert means[3] > means[2] > means[0]
    assert (
        sl.score(model, other, [None, edit]).groupby("condition").logprob.mean().diff().iloc[-1] < means[3] - means[0]
    )


@pytest.mark.parametrize("site", SITES)
def test_every_site(any_model: Any, site: Any) -> None:
    edit = sl.reft(any_model, TARGETS, site=site, **QUICK)
    losses = edit.vector.source["losses"]
    assert (edit.vector.site, edit.vector.heads) == (site, HEADS if site == "z" else 1)
    assert min(loss for _, loss in losses) < losses[0][1]
    frame = sl.score(any_model, TARGETS, edit)
    found = -frame[frame.position > 1].logprob.mean()
    assert found == pytest.approx(min(loss for _, loss in losses), abs=1e-4)


def test_grids_in_any_order_and_batch_equal_the_loop(any_model: Any) -> None:
    edits: list[Any] = [sl.reft(any_model, TARGETS, seed=seed, **{**QUICK, "layer": seed}) for seed in range(3)]
    vector = sl.SteeringVector(torch.ones(1, reference.D_MODEL), 1, edits[1].vector.model, placement="all")
    conditions = [None, *edits, -2 * edits[1], (edits[1], vector), (vector, edits[1]), (edits[0], edits[2]), vector]
    prompts = ["The dog ran", "Once upon a time there was a", "I"]
    loop = torch.stack([torch.cat([sl.next_token_logits(any_model, [one], c) for one in prompts]) for c in conditions])
    order = list(range(len(conditions)))
    random.Random(0).shuffle(order)
    for batch_size in (None, 4):
        found = sl.next_token_logits(any_model, prompts, [conditions[i] for i in order], batch_size=batch_size)
        close(found, loop[order])
    assert (loop[5] - loop[6]).abs().max() > 1e-4  # one reads what the other has added


def test_the_strength_scales_the_edit_and_zero_changes_no_bit(any_model: Any) -> None:
    edit = sl.reft(any_model, TARGETS, **QUICK)
    name, ids = "blocks.1.hook_resid_pre", torch.tensor([ids_of("The dog ran")])

    def seen(*steering: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), sl.steer(any_model, *steering):
            logits, cache = any_model.run_with_cache(ids, names_filter=name, return_cache_object=False)
        return logits, cache[name]

    base, plain = seen()
    zero, _ = seen(0 * edit)
    assert torch.equal(zero, base)
    whole, half = seen(edit)[1] - plain, seen(0.5 * edit)[1] - plain
    close(half, whole / 2)
    assert whole[0, 1:].norm(dim=-1).min() > 1e-3
    with sl.steer(any_model, edit) as (receipt,):
        any_model(ids)
    assert (receipt.operation, receipt.applications, receipt.layer) == ("reft", 1, 1)


def test_it_sweeps_and_generates(any_model: Any) -> None:
    edit = sl.reft(any_model, TARGETS, **QUICK)
    swept = sl.sweep(
        any_model,
        edit,
        "The dog",
        coeffs=[0.5, 1],
        metrics=[sl.metrics.length()],
        n=1,
        max_new_tokens=3,
        progress=False,
    )
    assert set(swept.frame.coeff) == {0.0, 0.5, 1.0}
    alone = sl.generate(any_model, "The dog", 0.5 * edit, n=2, max_new_tokens=4, seed=3)
    both = sl.generate(any_model, "The dog", [edit, 0.5 * edit], n=2, max_new_tokens=4, seed=3)
    assert both[both.condition == 1].completion.tolist() == alone.completion.tolist()


def test_a_seed_gives_the_same_edit_and_leaves_the_world_alone(any_model: Any) -> None:
    before = torch.get_rng_state()
    gradients = [weight.grad for weight in any_model.parameters()]  # (whatever another user left)
    one, two = (sl.reft(any_model, TARGETS, **QUICK) for _ in range(2))
    assert torch.equal(one.vector.values, two.vector.values)
    assert one.value == two.value
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is old for weight, old in zip(any_model.parameters(), gradients, strict=True))


def test_formats_of_tools_that_only_add_refuse_it(any_model: Any, tmp_path: Path) -> None:
    edit = sl.reft(any_model, TARGETS, **QUICK)
    for save, name in ((sl.save_gguf, "a.gguf"), (sl.save_hotwire, "a.pt"), (sl.save_vllm_lens, "a.pt")):
        with pytest.raises(
            sl.SteerlensError, match="holds vectors that are added; what 'reft towards .* adds depends on activations"
        ):
            save(edit, tmp_path / name)  # type: ignore[operator]
    with pytest.raises(sl.SteerlensError, match="cannot 'reft'"):
        sl.save_lm_eval(edit, tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_bad_input_is_one_line(any_model: Any) -> None:
    for targets, options, words in (
        ([], {}, "targets must be a list of at least one text"),
        (TARGETS, {"steps": 0}, "steps must be a whole number of at least 1"),
        (TARGETS, {"layer": 9}, "layer 9 is out of range"),
        (TARGETS, {"site": "nowhere"}, "site 'nowhere' is unknown"),
        (["one text"], {"held_out": 0.5}, "one text cannot be trained and checked on"),
        (TARGETS, {"lr": 1e-9, "steps": 1}, "none of 1 steps improved"),
    ):
        with pytest.raises(sl.SteerlensError, match=words) as caught:
            sl.reft(any_model, targets, **{**QUICK, **options})
        assert "\n" not in str(caught.value)
