"""Completions: equal to the plain loop, the same whatever the batch, and honest about what they were given."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.engine.sampling import sample
from steerlens.engine.sampling_settings import Sampling
from steerlens.steering import Condition, Injection, as_conditions
from steerlens.steering.prompts import prompt_ids
from tests import reference
from tests.conftest import KINDS, Case, live_hooks, loaded, some_cases

PROMPT = "I went up to my friend and said"
OTHER = "The weather today is"


def vectors(model, *, layer: int = 1):
    """A four-position ActAdd vector and a one-position vector of the same layer."""
    pair = sl.actadd(model, "Love you", "Hate", layer=layer)
    return 2.0 * pair, 3.0 * pair.at(1)


def reference_additions(case: Case, vector: sl.SteeringVector, placement, length: int):
    """What the plain Hugging Face model needs added, as a function of the length so far."""
    values = vector.values
    return lambda total: {vector.layer: reference.placed(values, placement, length, total=total)}


# Vectors of a centred residual stream do not fit the plain model; those of the raw classes and of RMS norm do.
@some_cases(lambda architecture, kind: kind.endswith("raw") or architecture == "llama")
@pytest.mark.parametrize("placement", ["front", "mid", "back", 2, -5, "last", *reference.RANGES])
def test_greedy_tokens_are_those_of_plain_hooks_on_the_plain_model(case: Case, placement) -> None:
    """Law 8, against a model that knows neither TransformerLens nor steerlens nor a cache."""
    several, single = vectors(case.model)
    vector = single if placement in ("last", *reference.RANGES) else several
    ids = prompt_ids(case.model, PROMPT)
    expected = reference.greedy(case.hf, ids, 6, reference_additions(case, vector, placement, len(ids)))
    done = sample(
        case.model,
        [ids],
        as_conditions(vector, placement=placement),
        sampling=Sampling(temperature=0, max_new_tokens=6, stop_at_end=False),
    )
    assert done.tokens[0, 0, 0].tolist() == expected


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_tokens_are_those_of_generate_in_steer(case: Case, use_cache: bool) -> None:
    """Laws 7 and 8: the engine equals TransformerLens' own loop, with and without a cache."""
    vector, _ = vectors(case.model)
    ids = prompt_ids(case.model, PROMPT)
    with sl.steer(case.model, vector):
        plain = case.model.generate(
            torch.tensor([ids]),
            max_new_tokens=5,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
            return_type="tokens",
        )
    done = sample(
        case.model,
        [ids],
        as_conditions(vector),
        sampling=Sampling(temperature=0, max_new_tokens=5, stop_at_end=False),
        use_cache=use_cache,
    )
    assert done.tokens[0, 0, 0].tolist() == plain[0, len(ids) :].tolist()


@pytest.mark.parametrize("placement", ["front", "mid", "back", "last", *reference.RANGES])
def test_cache_or_not_gives_the_same_sampled_tokens(gpt2, placement) -> None:
    """Law 7, sampled, prompts of mixed length, rows that end at different times."""
    several, single = vectors(gpt2)
    vector = single if placement in ("last", *reference.RANGES) else several
    both = [
        sl.generate(
            gpt2, [PROMPT, OTHER], [None, vector], n=3, max_new_tokens=8, placement=placement, use_cache=use_cache
        )["completion"]
        for use_cache in (True, False)
    ]
    assert both[0].tolist() == both[1].tolist()


def test_a_completion_does_not_depend_on_its_company() -> None:
    """Law 9: batch size, other conditions, other prompts and their order leave a completion as it is, but for rounding.

    Where two tokens are all but equally likely, the last bits of the logits decide, and these move with the shape of
    the batch: a few completions in a hundred may differ.
    """
    choose = random.Random(0)
    equal = total = 0
    for kind in KINDS:
        model = loaded("gpt2", kind)
        several, single = vectors(model)
        pool = [
            None,
            several,
            -several,
            (several, single),
            Injection(single, "all"),
            Injection(several, "back"),
            (Injection(single, "generated"), Injection(single, "prompt")),
            Injection(single, "from_last"),
            0 * several,
        ]
        for _ in range(4):
            chosen = choose.choices(pool, k=choose.randint(1, 4))
            prompts = choose.choices([PROMPT, OTHER, "Yes we can", PROMPT + " that"], k=choose.randint(1, 3))
            n, batch_size = choose.randint(1, 3), choose.choice([1, 2, 3, 5, 7, 64])
            options = {"n": n, "max_new_tokens": 6, "seed": choose.randint(0, 3)}
            together = sl.generate(model, prompts, chosen, batch_size=batch_size, **options)
            for c, condition in enumerate(chosen):
                for p, prompt in enumerate(prompts):
                    alone = sl.generate(model, prompt, condition, **options)
                    rows = together[together["condition"] == c].iloc[p * n : (p + 1) * n]
                    assert rows["prompt"].eq(prompt).all()
                    total += n
                    equal += sum(a == b for a, b in zip(rows["completion"], alone["completion"], strict=True))
    assert equal >= 0.93 * total


def test_more_samples_keep_the_first_ones(any_model) -> None:
    few = sl.generate(any_model, PROMPT, n=2, max_new_tokens=6)
    many = sl.generate(any_model, PROMPT, n=5, max_new_tokens=6)
    assert many["completion"].tolist()[:2] == few["completion"].tolist()
    assert many["completion"].nunique() > 1


def test_seeds_differ_and_repeat(any_model) -> None:
    runs = {seed: sl.generate(any_model, PROMPT, n=3, max_new_tokens=8, seed=seed) for seed in (0, 1)}
    again = sl.generate(any_model, PROMPT, n=3, max_new_tokens=8, seed=0)
    assert runs[0]["completion"].tolist() == again["completion"].tolist()
    assert runs[0]["completion"].tolist() != runs[1]["completion"].tolist()


def test_coefficient_zero_is_the_unsteered_run(gpt2) -> None:
    """Law 2 for completions: sample numbers draw the same random numbers under every condition."""
    vector, _ = vectors(gpt2)
    frame = sl.generate(gpt2, PROMPT, [None, 0 * vector], n=4, max_new_tokens=8)
    by_condition = frame.groupby("condition")["completion"].agg(list)
    assert by_condition[0] == by_condition[1]


def test_the_callers_random_state_is_untouched(any_model) -> None:
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    sl.generate(any_model, PROMPT, n=2, max_new_tokens=4)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert all(np.array_equal(a, b) for a, b in zip(before[2], np.random.get_state(), strict=True))


def test_a_completion_ends_at_end_of_text(any_model) -> None:
    """A row that ends is cut there, stays out of the others' way, and says so."""
    model = any_model
    end = model.tokenizer.eos_token_id
    vector, _ = vectors(model)
    frame = sl.generate(
        model, [PROMPT, OTHER], [None, vector], n=20, max_new_tokens=30, temperature=3.0, top_p=1.0, seed=2
    )
    free = sl.generate(
        model,
        [PROMPT, OTHER],
        [None, vector],
        n=20,
        max_new_tokens=30,
        temperature=3.0,
        top_p=1.0,
        seed=2,
        stop_at_end=False,
    )
    assert (free["n_tokens"] == 30).all() and not free["finished"].any()
    text = model.tokenizer.decode([end])
    expected = free["completion"].str.split(text, n=1, regex=False).str[0]
    assert frame["completion"].tolist() == expected.tolist()
    assert (frame["finished"] == (frame["n_tokens"] < 30)).all()


def test_rows_that_end_leave_the_batch(any_model, monkeypatch) -> None:
    """With one token that nearly always follows, whole batches end early and the rest go on unharmed."""
    import steerlens.engine.sampling as engine

    widths = []
    original = engine.Decoders.begin

    class Watched:
        def __init__(self, decoder):
            self.decoder, self.leave = decoder, decoder.leave

        def step(self, tokens):
            widths.append(len(tokens))
            logits = self.decoder.step(tokens)
            logits[:, any_model.tokenizer.eos_token_id] = logits.logsumexp(-1) - 1.5  # ends a fifth of the rows
            return logits

    monkeypatch.setattr(engine.Decoders, "begin", lambda *args, **kwargs: Watched(original(*args, **kwargs)))
    frame = sl.generate(any_model, PROMPT, n=24, max_new_tokens=12, top_p=1.0)
    assert widths[0] == 24 and widths[-1] < 24 and sorted(widths, reverse=True) == widths
    assert frame["finished"].any()
    sizes = {
        size: sl.generate(any_model, PROMPT, n=24, max_new_tokens=12, top_p=1.0, batch_size=size) for size in (5, 24)
    }
    assert sizes[5]["completion"].tolist() == sizes[24]["completion"].tolist() == frame["completion"].tolist()


def test_the_frame_is_tidy(any_model) -> None:
    vector, single = vectors(any_model)
    frame = sl.generate(any_model, [PROMPT, OTHER], [None, vector, (vector, single)], n=2, max_new_tokens=3, seed=5)
    assert list(frame.columns) == [
        "condition", "label", "layer", "coeff", "placement", "prompt",
        "sample", "completion", "n_tokens", "finished", "seed",
    ]  # fmt: skip
    assert len(frame) == 3 * 2 * 2
    assert frame["layer"].isna().tolist() == [True] * 4 + [False] * 8
    assert frame["coeff"].tolist()[:8] == [0.0] * 4 + [2.0] * 4
    assert frame["label"].iloc[0] == "unsteered"
    receipts = frame.attrs["receipts"]
    assert [len(r) for r in receipts] == [0, 1, 2]
    assert receipts[1][0]["positions"] == (0, 1, 2, 3) and receipts[1][0]["applications"] == 2


def test_live_hooks_of_the_user_act_and_survive(any_model) -> None:
    """The user's own hooks act as they would in model.generate, and are there afterwards."""
    calls = []
    any_model.add_hook("blocks.0.hook_resid_pre", lambda resid, hook: calls.append(resid.shape))
    try:
        sl.generate(any_model, PROMPT, n=2, max_new_tokens=3)
        assert calls and live_hooks(any_model)["blocks.0.hook_resid_pre"] == 1
    finally:
        any_model.reset_hooks()


def test_an_error_in_the_middle_leaves_no_hook(any_model) -> None:
    vector, _ = vectors(any_model)
    before = live_hooks(any_model)

    def boom(resid, hook):
        raise KeyboardInterrupt

    any_model.add_hook("blocks.2.hook_resid_pre", boom)
    try:
        with pytest.raises(KeyboardInterrupt):
            sl.generate(any_model, PROMPT, vector, n=2, max_new_tokens=3)
    finally:
        any_model.reset_hooks()
    assert live_hooks(any_model) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": ""}, "empty"),
        ({"prompts": []}, "empty"),
        ({"n": 0}, "n is "),
        ({"n": True}, "n is "),
        ({"max_new_tokens": 0}, "max_new_tokens is "),
        ({"max_new_tokens": 1000}, "do not fit"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"batch_size": -1}, "batch_size"),
        ({"steering": []}, "list of conditions is empty"),
        ({"steering": "love"}, "expected a SteeringVector"),
        ({"placement": "middle"}, "placement 'middle'"),
        ({"prompts": "word " * 200}, "tokens but the model reads"),
    ],
)
def test_bad_input_is_one_clear_line(any_model, arguments, words) -> None:
    vector, _ = vectors(any_model)
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        sl.generate(any_model, **{"prompts": PROMPT, "steering": vector, **arguments})
    assert "\n" not in str(caught.value)


def test_a_vector_longer_than_the_prompt_is_refused(any_model) -> None:
    vector, _ = vectors(any_model)
    with pytest.raises(sl.SteerlensError, match="spans 4 positions but the prompt has 2 tokens"):
        sl.generate(any_model, "Yes", vector)
    assert not live_hooks(any_model)


def test_the_demo_model_can_be_steered(demo) -> None:
    """The embedded model says other things when steered, and the steering reaches every sample."""
    condition = Condition((Injection(4 * sl.actadd(demo, " weddings", " ", layer=3)),))
    frame = sl.generate(demo, PROMPT, [None, condition], n=8, max_new_tokens=12)
    texts = frame.groupby("condition")["completion"].agg(list)
    assert sum(a != b for a, b in zip(texts[0], texts[1], strict=True)) >= 6
