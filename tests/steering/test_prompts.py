"""Prompts as token rows: the same rows as TransformerLens makes, padded as the paper says, or a clear error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steerlens as sl
from steerlens.models import end_ids
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.tokens import continuation_ids, pad_id, pad_left, single_token, token_ids, token_strings
from tests import reference
from tests.conftest import KINDS, loaded, make_tokenizer

TOKENIZERS = ("plain", "distinct", "pad", "prepends")
TEXTS = [" ", "Love", " weddings are fun", "Ünïcode ☃ 雪 \U0001f469‍\U0001f4bb", "a\n\tb  c", "<|endoftext|>x", "'<b>'"]


@pytest.fixture(params=[(k, t) for k in KINDS[::2] for t in TOKENIZERS], ids=lambda p: f"{p[0]}-{p[1]}")
def model(request: pytest.FixtureRequest) -> Any:
    return loaded("gpt2", *request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_the_rows_are_those_of_transformer_lens_but_for_a_second_bos(model: Any, text: str) -> None:
    theirs = model.to_tokens(text)[0].tolist()
    twice = text.startswith(model.tokenizer.bos_token)
    assert theirs[:2].count(model.tokenizer.bos_token_id) == 1 + twice
    assert token_ids(model, text) == theirs[twice:]


@pytest.mark.parametrize("text", TEXTS)
def test_the_rows_without_bos(model: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.cfg, "default_prepend_bos", False)
    assert token_ids(model, text) == model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert token_ids(model, text) == model.to_tokens(text)[0].tolist()


@pytest.mark.parametrize("text", TEXTS)
def test_exactly_one_bos(model: Any, text: str) -> None:
    ids = token_ids(model, text)
    assert ids[0] == model.tokenizer.bos_token_id
    written = text.startswith(model.tokenizer.bos_token)
    assert ids[1 - written :] == model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[1 - written :] == continuation_ids(model, text)


def test_special_ids(model: Any) -> None:
    assert end_ids(model) == (0,), "those of the model's own settings"
    assert pad_id(model) == model.tokenizer.pad_token_id


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_text_survives(text: str) -> None:
    model = loaded("gpt2", KINDS[0])
    if len(make_tokenizer()(text)["input_ids"]) >= reference.N_CTX:
        with pytest.raises(sl.SteerlensError, match="tokens but the model reads 64"):
            prompt_ids(model, text)
        return
    ids = prompt_ids(model, text)
    assert model.tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text
    assert len(token_strings(model, ids)) == len(ids)


def test_text_that_no_file_could_hold(any_model: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="not valid text"):
        prompt_ids(any_model, "half a \ud83d surrogate pair")


# ---------------------------------------------------------------------------------------------------------------- pairs


def test_only_the_shorter_prompt_is_padded_and_on_the_right(model: Any) -> None:
    (space,) = continuation_ids(model, " ")
    long, short = token_ids(model, " weddings are fun"), token_ids(model, "Hate")
    for positive, negative, rows, padding in [
        (" weddings are fun", "Hate", [long, short + [space] * (len(long) - len(short))], (0, len(long) - len(short))),
        ("Hate", " weddings are fun", [short + [space] * (len(long) - len(short)), long], (len(long) - len(short), 0)),
        ("Hate", "Hate", [short, short], (0, 0)),
        ("Hate", "", [short, [short[0]] + [space] * (len(short) - 1)], (0, len(short) - 1)),
    ]:
        padded = sl.PromptPair(positive, negative).padded(model)
        assert padded.ids.tolist() == rows
        assert padded.padding == padding
        assert len(padded.positive) == len(padded.negative) == padded.ids.shape[1]


@pytest.mark.parametrize("pad", ["<|endoftext|>", "the", " the"])
def test_a_pad_of_choice(any_model: Any, pad: str) -> None:
    padded = sl.PromptPair(" weddings are fun", "Hate", pad=pad).padded(any_model)
    (wanted,) = any_model.tokenizer(pad, add_special_tokens=False)["input_ids"]
    count = padded.padding[1]
    assert padded.ids[1, -count:].tolist() == [wanted] * count


@pytest.mark.parametrize("pad", ["two words", "", "雪雪"])
def test_pads_that_are_not_one_token(any_model: Any, pad: str) -> None:
    with pytest.raises(sl.SteerlensError, match=r"is \d+ tokens for this model .*one token"):
        sl.actadd(any_model, "Love", "Hate it", layer=0, pad=pad)


def test_a_single_token(any_model: Any) -> None:
    assert single_token(any_model, " the") == any_model.tokenizer(" the")["input_ids"][-1]


def test_a_pair_shows_its_tokens(any_model: Any) -> None:
    text = str(sl.PromptPair("Love it", "Hate").padded(any_model))
    assert text.splitlines()[0].split() == ["pos", "positive", "negative"]
    assert "L                H" in text
    assert "␣it" in text
    assert str(sl.PromptPair("Love", " ")) == "'Love' − ' '"


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("positive", "negative"), [("", ""), (None, "a"), ("a", 3), (["a"], "b"), (b"a", "b")])
def test_pairs_that_are_none(positive: Any, negative: Any) -> None:
    with pytest.raises(sl.SteerlensError, match=r"both prompts of the pair are empty|must be text"):
        sl.PromptPair(positive, negative)


def test_empty_prompts(model: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="the prompt is empty"):
        prompt_ids(model, "")


@pytest.mark.parametrize("prompt", [None, 3, ["a"], b"a", torch.tensor([1.5]), {"role": "user"}, {1, 2}, [1.0]])
def test_prompts_that_are_none(any_model: Any, prompt: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="a prompt must be text"):
        prompt_ids(any_model, prompt)


def test_prompts_longer_than_the_context_are_never_cut(model: Any) -> None:
    n = reference.N_CTX
    fits = " the" * (n - 1)
    assert len(prompt_ids(model, fits)) == n
    for run in (
        lambda: prompt_ids(model, fits + " the"),
        lambda: sl.actadd(model, fits + " the", "b", layer=0),
        lambda: sl.actadd(model, "b", fits + " the", layer=0),
        lambda: sl.mean_difference(model, ["b", fits + " the"], ["b"], layer=0),
    ):
        with pytest.raises(sl.SteerlensError, match=f"has {n + 1} tokens but the model reads {n}; shorten it"):
            run()
    assert sl.actadd(model, fits, "b", layer=0).n_positions == n


def test_a_model_without_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sl.load_model(
        reference.tiny_model("gpt2", vocab=8200, n_layers=1), tokenizer=make_tokenizer(), device="cpu"
    )
    model.tokenizer = None
    with pytest.raises(sl.SteerlensError, match="this model has no tokenizer"):
        prompt_ids(model, "Hello")


# --------------------------------------------------------------------------------------------------------- left padding


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_left_padding(rows: list[list[int]]) -> None:
    tokens, mask = pad_left(rows, pad=0, device="cpu")
    assert tokens.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, ids, real in zip(rows, tokens, mask, strict=True):
        assert ids[real == 1].tolist() == row
        assert real.tolist() == sorted(real.tolist())


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 10**40], "outside the model's embedding"),
        ([1, -(10**40)], "outside the model's embedding"),
        (torch.ones(3, dtype=torch.long, device="meta"), "in memory"),
        (torch.tensor([1, 2, 3]).to_sparse(), "in memory"),
    ],
)
def test_ids_that_are_no_plain_numbers(demo: Any, ids: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        sl.generate(demo, ids, n=1, max_new_tokens=1)
    assert len(str(caught.value)) < 400
