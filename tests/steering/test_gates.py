"""Gates: what has one acts in the prompts beyond its threshold, and the others are as without it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.engine.sampling import sample
from steerlens.engine.sampling_settings import Sampling
from steerlens.models import SITES
from tests import reference
from tests.conftest import Case, live_hooks
from tests.steering.sites.cases import close, expected, ids_of, log_probs, sites_of, vector_on

# Of several lengths; one twice.
TEXTS = [
    "The dog ran",
    "Once upon a time there was a",
    "They",
    "He said that the cat",
    "The dog ran",
    "Snow on the old",
]


def direction_on(model: Any, site: Any = "resid_pre", layer: int = 2) -> sl.SteeringVector:
    return vector_on(model, site, layer, seed=3)


def gate_on(model: Any, prompts: Any, site: Any = "resid_pre", layer: int = 2, **options: Any) -> sl.Gate:
    """A gate that opens for about half of the prompts, with a threshold between two of their projections."""
    direction = direction_on(model, site, layer)
    found = sorted(set(sl.Gate(direction, above=0.0, **options).projections(model, prompts)))
    return sl.Gate(direction, above=sum(found[len(found) // 2 - 1 : len(found) // 2 + 1]) / 2, **options)


def open_for(gate: sl.Gate, model: Any, prompts: Any) -> list[bool]:
    found = [value > gate.above for value in gate.projections(model, prompts)]
    assert any(found) and not all(found)
    return found


@pytest.mark.parametrize("token", ["last", "mean"])
def test_projections_are_those_of_plain_activations(case: Case, token: Any) -> None:
    if not case.kind.endswith("raw"):
        return  # other activations
    for site in sites_of(case):
        direction = direction_on(case.model, site, 1)
        found = sl.Gate(-2 * direction, below=0.0, token=token).projections(case.model, TEXTS)
        for text, value in zip(TEXTS, found, strict=True):
            kept: list[torch.Tensor] = []
            ids = case.model.to_tokens(text)[0].tolist()
            reference.changed_log_probs(case.hf, ids, [(1, site, lambda x, kept=kept: kept.append(x) or x)])
            read = kept[0][-1] if token == "last" else kept[0][1:].mean(0)
            assert value == pytest.approx(-float(read @ direction.values[0] / direction.norm), abs=1e-4)


@pytest.mark.parametrize(("layer", "batch_size"), [(0, None), (2, 2)])
def test_grids_and_scores(case: Case, layer: int, batch_size: int | None) -> None:
    """Rows with a closed gate are the unsteered ones, the others the steered ones."""
    model = case.model
    gate = gate_on(model, TEXTS, layer=layer, token="mean")
    fired = open_for(gate, model, TEXTS)
    vector, other = vector_on(model, "resid_pre", 1), vector_on(model, "resid_post", 1, seed=5)
    plain, gated = sl.Injection(vector), sl.Injection(vector, gate=gate)
    conditions = [None, plain, gated, (gated, sl.Injection(other)), sl.Condition((plain,), gate=gate), other]
    found = sl.next_token_logits(model, TEXTS, conditions, batch_size=batch_size)
    both = sl.next_token_logits(model, TEXTS, (plain, sl.Injection(other)), batch_size=batch_size)
    text = " and they were happy"
    scores = sl.score(model, [text] * len(TEXTS), conditions, prompt=TEXTS, batch_size=batch_size)
    for row, is_open in enumerate(fired):
        close(found[2, row], found[1 if is_open else 0, row])
        close(found[3, row], both[row] if is_open else found[5, row])
        assert torch.equal(found[4, row], found[2, row])
        here = scores[scores.text_index == row]
        of = {number: torch.tensor(here[here.condition == number].logprob.values) for number in range(3)}
        close(of[2].float(), of[1 if is_open else 0].float())
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("placement", ["all", "prompt", "generated"])
def test_completions(gpt2: Any, placement: Any, use_cache: bool) -> None:
    gate = gate_on(gpt2, TEXTS)
    fired = open_for(gate, gpt2, TEXTS)
    vector = 8 * vector_on(gpt2, "resid_pre", 1)
    rows = [gpt2.to_tokens(text)[0].tolist() for text in TEXTS]
    conditions = [
        sl.Condition(),
        sl.Condition((sl.Injection(vector, placement),)),
        sl.Condition((sl.Injection(vector, placement, gate=gate),)),
    ]
    sampling = Sampling(n=2, temperature=0, max_new_tokens=4, stop_at_end=False)
    done = sample(gpt2, rows, conditions, sampling=sampling, use_cache=use_cache)
    for row, is_open in enumerate(fired):
        assert torch.equal(done.tokens[2, row], done.tokens[1 if is_open else 0, row])
    assert not torch.equal(done.tokens[0], done.tokens[1])
    assert done.receipts[2][0].fired == tuple(row for row, is_open in enumerate(fired) if is_open)
    assert done.receipts[1][0].fired is None
    frame = sl.generate(gpt2, TEXTS, conditions[2], n=1, max_new_tokens=1)
    assert frame.attrs["receipts"][0][0]["fired"] == done.receipts[2][0].fired


@pytest.mark.parametrize(("gate_layer", "site"), [(0, "resid_pre"), (1, "z"), (2, "resid_post")])
def test_steer_in_padded_batches(case: Case, gate_layer: int, site: Any) -> None:
    """The gate before, in and behind the vector's block; rows padded on both sides."""
    rows = [ids_of(6), ids_of(4, 1), ids_of(7, 2), ids_of(5, 3)]
    width = 8
    padded = [[7, *row, *[7] * (width - 1 - len(row))] for row in rows]
    mask = [[0, *[1] * len(row), *[0] * (width - 1 - len(row))] for row in rows]
    gate = gate_on(case.model, rows, site, gate_layer)
    fired = open_for(gate, case.model, rows)
    one = sl.Injection(vector_on(case.model, "resid_pre", 1), "all", gate=gate)
    also = sl.Injection(vector_on(case.model, "mlp_out", 0), "last")
    with sl.steer(case.model, one, also) as receipts:
        found = log_probs(case.model, padded, mask)
        assert receipts[0].fired == tuple(row for row, is_open in enumerate(fired) if is_open)
        alone = log_probs(case.model, rows[:1])[0]  # another batch of prompts: decided anew
        assert receipts[0].fired == ((0,) if fired[0] else ())
    for row, ids, is_open in zip(found, rows, fired, strict=True):
        close(row[1 : 1 + len(ids)], expected(case.hf, ids, *([one] if is_open else []), also))
    close(alone, expected(case.hf, rows[0], *([one] if fired[0] else []), also))


@pytest.mark.parametrize("cache", [True, False])
def test_generation_inside_steer(gpt2: Any, cache: bool) -> None:
    rows = [ids_of(5, seed) for seed in range(6)]
    gate = gate_on(gpt2, rows)
    one = sl.Injection(8 * vector_on(gpt2, "resid_pre", 1), "all", gate=gate)
    sampling = Sampling(temperature=0, max_new_tokens=4, stop_at_end=False, n=1)
    done = sample(gpt2, rows, [sl.Condition((one,))], sampling=sampling)
    with sl.steer(gpt2, one) as receipts:
        out = gpt2.generate(
            torch.tensor(rows), max_new_tokens=4, do_sample=False, use_past_kv_cache=cache, stop_at_eos=False,
            return_type="tokens", verbose=False,
        )  # fmt: skip
    assert out[:, 5:].tolist() == done.tokens[0, :, 0].tolist()
    assert receipts[0].fired == done.receipts[0][0].fired


def test_a_pass_that_stops_early_or_is_cached(gpt2: Any) -> None:
    """The model is asked inside the pass: what the caller asked of the pass still holds, and hooks stay."""
    ids = ids_of(6)
    gate = sl.Gate(direction_on(gpt2, layer=2), above=-1e6)
    one = sl.Injection(vector_on(gpt2, "resid_pre", 0), "all", gate=gate)
    plain = sl.Injection(vector_on(gpt2, "resid_pre", 0), "all")
    before = live_hooks(gpt2)
    seen: list[list[torch.Tensor]] = [[], []]
    for which, injection in enumerate((one, plain)):
        with sl.steer(gpt2, injection), torch.no_grad():
            seen[which].append(gpt2(torch.tensor([ids]), stop_at_layer=2))
            logits, cache = gpt2.run_with_cache(torch.tensor([ids]))
            seen[which] += [logits, *(cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(3))]
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert seen[0][0].shape[-1] == reference.D_MODEL
    assert live_hooks(gpt2) == before


def test_every_site_can_be_read_and_any_operation_gated(any_model: Any) -> None:
    for site in SITES:
        gate = gate_on(any_model, TEXTS, site)
        fired = open_for(gate, any_model, TEXTS)
        one = sl.Injection(vector_on(any_model, "mlp_out", 1), "all", "ablate")
        base, steered, gated = sl.next_token_logits(any_model, TEXTS, [None, one, sl.Condition((one,), gate=gate)])
        for row, is_open in enumerate(fired):
            close(gated[row], (steered if is_open else base)[row])


def test_thresholds(any_model: Any) -> None:
    direction = direction_on(any_model, layer=1)
    values = [-1.0, 0.0, 1.0, 2.0]
    for given, opens in (
        ({"above": 0.0}, [False, False, True, True]),
        ({"below": 1.0}, [True, True, False, False]),
        ({"above": -0.5, "below": 1.5}, [False, True, True, False]),
    ):
        assert sl.Gate(direction, **given).opens(values) == opens
    there = sl.Gate(direction, above=1.0, layer=2)
    assert (there.layer, there.direction.layer, there.title) == (2, 2, "vector at layer 2 > 1")
    moved = sl.Gate(sl.SteeringVector(direction.values, 2, direction.model), above=1.0)
    assert there.projections(any_model, TEXTS) == moved.projections(any_model, TEXTS)
    assert repr(sl.Gate(direction, above=1, below=2, token="mean")) == (
        "Gate(vector at layer 1 > 1 and < 2, mean over the prompt)"
    )
    assert sl.Condition((sl.Injection(direction),), gate=there).label == "vector if vector at layer 2 > 1"


def test_a_gate_that_never_opens_is_said(any_model: Any) -> None:
    gate = sl.Gate(direction_on(any_model), above=1e6)
    one = sl.Injection(vector_on(any_model, "resid_pre", 1), gate=gate)
    with pytest.warns(UserWarning, match="fired in none of 6 prompts, whose projections are"):
        base = sl.next_token_logits(any_model, TEXTS, [None, one])
    assert torch.equal(base[0], base[1])
    with pytest.warns(UserWarning, match="fired in none of 1 prompts"):
        sl.generate(any_model, "The dog", one, n=1, max_new_tokens=1)
    with pytest.warns(UserWarning, match="fired in none of the prompts"), sl.steer(any_model, one):
        log_probs(any_model, [ids_of(5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(any_model, one):
            pass
        sl.next_token_logits(any_model, TEXTS, sl.Injection(one.vector, gate=sl.Gate(gate.direction, below=1e6)))


def test_run_keys_tell_gates_apart(any_model: Any) -> None:
    from steerlens.runs.run_keys import run_key

    vector, direction = vector_on(any_model, "resid_pre"), direction_on(any_model)
    gates = [
        None,
        sl.Gate(direction, above=1),
        sl.Gate(direction, below=1),
        sl.Gate(direction, above=2),
        sl.Gate(-direction, above=1),
        sl.Gate(direction, above=1, layer=0),
        sl.Gate(direction, above=1, token="mean"),
    ]
    keys = [run_key(sl.Condition((sl.Injection(vector, gate=gate),)), job="job") for gate in gates]
    assert len(set(keys)) == len(keys)
    again = sl.Injection(vector, gate=sl.Gate(2 * direction, above=1))  # the same direction
    assert run_key(sl.Condition((again,)), job="job") == keys[1]


def test_analysis_sees_what_the_gate_lets_through(any_model: Any) -> None:
    gate = gate_on(any_model, TEXTS)
    fired = open_for(gate, any_model, TEXTS)
    vector = sl.actadd(any_model, " love", " hate", layer=1)
    for text, is_open in zip(TEXTS, fired, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = sl.token_map(any_model, text, sl.Injection(vector, gate=gate)).frame
        assert bool(frame.injected.any()) == is_open


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "needs a threshold"),
        ({"above": float("nan")}, "above must be a finite number"),
        ({"above": 2, "below": 1}, "no projection is above 2 and below 1"),
        ({"above": 1, "token": "first"}, "token='first' is unknown"),
        ({"above": 1, "layer": 9}, "out of range"),
        ({"above": 1, "direction": 4}, "must be a SteeringVector, got 4"),
    ],
)
def test_gates_that_are_none(any_model: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.Gate(**{"direction": direction_on(any_model), **change})


def test_what_a_gate_cannot_be_given_to(any_model: Any) -> None:
    direction, vector = direction_on(any_model), vector_on(any_model, "resid_pre")
    gate, other = sl.Gate(direction, above=1), sl.Gate(direction, above=2)
    for make, words in (
        (lambda: sl.Gate(vector_on(any_model, "resid_pre", span=2), above=1), "has one position"),
        (lambda: sl.Gate(0 * direction, above=1), "is zero"),
        (lambda: sl.Injection(vector, gate=4), "gate must be a Gate"),  # type: ignore[arg-type]
        (lambda: sl.Condition((sl.Injection(vector, gate=gate),), gate=other), "a gate of its own"),
    ):
        with pytest.raises(sl.SteerlensError, match=words):
            make()
    one = sl.Injection(vector, "all", gate=gate)
    with pytest.raises(sl.SteerlensError, match="a gate reads to the end"), sl.steer(any_model, one):
        any_model(torch.tensor([[0, 5, 6, 7], [0, 5, 0, 0]]))
    with pytest.raises(sl.SteerlensError, match="reads the tokens of the prompt"), sl.steer(any_model, one):
        any_model(torch.zeros(1, 3, reference.D_MODEL), start_at_layer=0)
