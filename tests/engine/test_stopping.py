"""Completions end where the model's own settings and the caller say; no penalty falls on what ends them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.engine.stopping import Stops, exempt_from_penalty
from steerlens.engine.token_counts import TokenCounts
from steerlens.models import end_ids
from tests import reference
from tests.conftest import KINDS, loaded, make_tokenizer, plain_model

PROMPT = "Once upon a time"
FREE = {"temperature": 0, "max_new_tokens": 24, "stop_at_end": False}


def new_ids(model: Any, **options: Any) -> list[int]:
    """The greedy continuation without any end."""
    text = sl.generate(model, PROMPT, **FREE, **options)["completion"][0]
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_generation_ends_at_every_id_that_the_model_names(kind: str) -> None:
    from transformers import GenerationConfig

    hf = deepcopy(plain_model("llama"))
    tokenizer = make_tokenizer()
    ids = tokenizer(tokenizer.bos_token + PROMPT)["input_ids"]
    prompt = {"inputs": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    free = torch.tensor(reference.greedy(hf, ids, 24))
    seldom = int(free[9])
    first = free.tolist().index(seldom)
    hf.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, seldom], pad_token_id=0)
    with torch.no_grad():
        theirs = hf.generate(**prompt, do_sample=False, max_new_tokens=24)[0, len(ids) :]
    assert len(theirs) == first + 1
    model = sl.load_model(
        hf,
        tokenizer=tokenizer,
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    assert end_ids(model) == (tokenizer.eos_token_id, seldom)
    (row,) = sl.generate(model, PROMPT, temperature=0, max_new_tokens=24).to_dict("records")
    assert (row["n_tokens"], row["finished"]) == (first, True)
    assert row["completion"] == tokenizer.decode(theirs[:-1], clean_up_tokenization_spaces=False)


def test_without_settings_the_tokenizers_end_counts(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(any_model.__dict__, "_steerlens_end_ids", raising=False)
    if hasattr(any_model, "original_model"):
        monkeypatch.setattr(any_model.original_model.generation_config, "eos_token_id", None)
    assert end_ids(any_model) == (any_model.tokenizer.eos_token_id,)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_stop_text_ends_a_completion_and_is_no_part_of_it(gpt2: Any, use_cache: bool) -> None:
    options = {**FREE, "temperature": 1.0, "n": 6, "top_p": 0.9, "seed": 3, "use_cache": use_cache}
    free = sl.generate(gpt2, PROMPT, **options)
    texts = free["completion"].tolist()
    stop = [texts[0][11:14], texts[1][4:9]]  # across tokens, in the middle of them
    found = sl.generate(gpt2, PROMPT, **options, stop=stop)
    for whole, row in zip(texts, found.to_dict("records"), strict=True):
        places = [place for one in stop if (place := whole.find(one)) >= 0]
        assert row["finished"] == bool(places)
        assert row["completion"] == (whole[: min(places)] if places else whole)
    assert found["finished"].iloc[:2].all()
    alone = sl.generate(gpt2, PROMPT, **options, stop=stop, batch_size=2)
    assert alone["completion"].tolist() == found["completion"].tolist()
    assert alone["n_tokens"].tolist() == found["n_tokens"].tolist()


def test_a_stop_id_ends_a_completion(gpt2: Any) -> None:
    ids = new_ids(gpt2)
    row = sl.generate(gpt2, PROMPT, **FREE, stop=ids[7]).iloc[0]
    assert (row["n_tokens"], row["finished"]) == (ids.index(ids[7]), True)
    assert gpt2.tokenizer(row["completion"], add_special_tokens=False)["input_ids"] == ids[: ids.index(ids[7])]


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        ("", "stop.* must not be empty"),
        ([3.5], "a text or a token id must be a whole number"),
        ([-1], "whole number of at least 0"),
        ({"a"}, "must be a list"),
        (10**6, "outside the vocabulary"),
    ],
)
def test_stops_that_are_none(any_model: Any, stop: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        sl.generate(any_model, PROMPT, stop=stop)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- penalty


def test_exempt_tokens_are_not_counted() -> None:
    tokens = torch.tensor([[3, 1, 3, 5, 1], [5, 5, 3, 2, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    exempt = torch.zeros(7, dtype=torch.bool)
    exempt[[3, 6]] = True
    counts, plain = TokenCounts.of_prompts(tokens, mask, exempt), TokenCounts.of_prompts(tokens, mask)
    for new in (torch.tensor([3, 5]), torch.tensor([6, 3]), torch.tensor([1, 1])):
        counts, plain = counts.add(new), plain.add(new)
        assert counts.dense(7).equal(plain.dense(7).masked_fill(exempt, 0))
    assert counts.select(torch.tensor([1])).repeat(2).dense(7).equal(counts.dense(7)[[1, 1]])


def test_no_penalty_falls_on_special_tokens_and_ends(gpt2: Any) -> None:
    exempt = exempt_from_penalty(gpt2, Stops.of(gpt2, sl.Sampling(stop=7)))
    assert {gpt2.tokenizer.eos_token_id, *end_ids(gpt2), 7} <= set(exempt.nonzero().flatten().tolist())
    assert not exempt[gpt2.tokenizer(" time")["input_ids"][-1]]


def test_the_penalty_of_a_chat_leaves_its_end_alone() -> None:
    """Forty ends of turns in the prompt: the end is drawn as often as without a penalty."""
    model = loaded("gpt2", KINDS[0])
    end = model.tokenizer.eos_token_id
    prompt = [end, *model.tokenizer(PROMPT)["input_ids"][-3:], *[end] * 40]
    options = {"n": 200, "max_new_tokens": 1, "top_p": 1.0, "temperature": 4.0, "seed": 1}
    logits = sl.next_token_logits(model, prompt)
    seen = set(prompt) - {end}
    punished = logits.clone().double() / 4.0
    for one in seen:
        punished[one] -= 3.0 * prompt.count(one)
    found = sl.generate(model, prompt, **options, frequency_penalty=3.0)
    share = float(punished.softmax(-1)[end])
    assert abs(found["finished"].mean() - share) < 4 * (share * (1 - share) / 200) ** 0.5 + 0.01


# ----------------------------------------------------------------------------------------------------------------- fits


def test_a_vector_that_does_not_fit_one_prompt_is_found_before_the_model_runs(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = sl.actadd(gpt2, "one two three four five six", "x", layer=1)
    short = sl.actadd(gpt2, "a", "b", layer=1)
    monkeypatch.setattr(type(gpt2), "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    prompts = [PROMPT + " there was a dog in the house", "I"]
    for run in (
        lambda: sl.generate(gpt2, prompts, [None, short, long]),
        lambda: sl.next_token_logits(gpt2, prompts, [None, short, long]),
        lambda: sl.score(gpt2, ["yes", "no"], [None, short, long], prompt=prompts),
        lambda: sl.sweep(gpt2, [long], prompts, metrics=[sl.metrics.words("a")]),
        lambda: sl.logit_shift(gpt2, prompts, [short, long]),
    ):
        with pytest.raises(sl.SteerlensError, match=r"on ('I'|prompt 1): vector spans \d+ positions .* has 2 tokens"):
            run()
