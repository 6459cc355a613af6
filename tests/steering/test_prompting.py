"""Words in place of vectors: where they go, and what they may not be."""

from __future__ import annotations

import pytest

import steerlens as sl
from steerlens.steering.prompting import prompting_of
from steerlens.steering.prompts import read_prompt
from steerlens.steering.tokens import tokenizer_of

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>"
NO_SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + (
    "<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>"
)
DROPS_SYSTEM = "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
CHAT = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def templated(any_model, monkeypatch):
    """A function that gives the model with a chat template."""

    def give(template: str):
        monkeypatch.setattr(tokenizer_of(any_model), "chat_template", template)
        return any_model

    return give


def test_words_stand_in_front_of_a_text(any_model) -> None:
    words = sl.Prompting("Tea is good.")
    assert words.before(any_model, read_prompt(any_model, "I went")) == read_prompt(any_model, "Tea is good. I went")
    newline = sl.Prompting("Tea.\n").before(any_model, read_prompt(any_model, "I went"))
    assert newline.text == "Tea.\nI went"


def test_words_stand_behind_bos_where_a_prompt_is_token_ids(any_model) -> None:
    # Tokens that no text has: "I" and " went" in pieces.
    letters = [tokenizer_of(any_model)(one)["input_ids"][0] for one in "Iwent"]
    start = list(read_prompt(any_model, "x").ids[:1])
    told = sl.Prompting("Tea").before(any_model, read_prompt(any_model, start + letters))
    assert list(told.ids[:1]) == start and list(told.ids[-len(letters) :]) == letters
    assert "Tea" in told.written


def test_a_chat_is_told_by_its_system_message(templated) -> None:
    model = templated(TEMPLATE)
    words = sl.Prompting(" tea", system="Talk about tea.")
    told = words.before(model, read_prompt(model, CHAT))
    assert told.written == "<system>Talk about tea.</s><user>Hello</s><assistant>"
    both = words.before(model, read_prompt(model, sl.with_system("Be brief.", "Hello")))
    assert both.written.startswith("<system>Talk about tea.\n\nBe brief.</s>")
    assert "tea</s>" in sl.Prompting("tea").before(model, read_prompt(model, CHAT)).written


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_template_without_system_messages_has_the_words_in_the_users_turn(templated, template) -> None:
    model = templated(template)
    told = sl.Prompting("Talk about tea.").before(model, read_prompt(model, CHAT))
    assert "<user>Talk about tea.\n\nHello" in told.written


def test_a_pair_says_its_positive_side() -> None:
    assert prompting_of(sl.PromptPair(" weddings", " ")) == sl.Prompting(" weddings", "Talk about weddings.")
    told = prompting_of(sl.PromptPair("I talk about weddings constantly", "I do not"))
    assert told == sl.Prompting("I talk about weddings constantly", "I talk about weddings constantly")
    assert prompting_of(sl.PromptPair(" ", " war")) is None
    assert prompting_of(sl.PromptPair([1, 2], [3, 4])) is None


def test_samples_are_paired_and_the_penalty_counts_the_prompt_as_given(any_model) -> None:
    """A word that the instruction repeats is not penalised: the first token is drawn from the plain distribution."""
    how = {"n": 8, "max_new_tokens": 1, "top_p": 1.0, "frequency_penalty": 50.0, "seed": 3}
    words = " ".join(["the a and of to in is was it for"] * 3)
    found = sl.generate(any_model, "I went", sl.Prompting(words), **how)
    # The same numbers drawn from the same logits, with a penalty on what is in "I went" alone.
    from steerlens.engine import Sampling
    from steerlens.engine.random_streams import row_keys, uniforms
    from steerlens.engine.sampler import next_tokens_where_any
    from steerlens.engine.token_counts import TokenCounts

    plain = read_prompt(any_model, "I went")
    logits = sl.next_token_logits(any_model, f"{words} I went").expand(8, -1)
    keys = row_keys(3, [plain.ids], 8)[0]
    import torch

    counts = TokenCounts.of_prompts(torch.tensor([plain.ids])).repeat(8)
    drawn = next_tokens_where_any(logits, Sampling(**how), uniforms(keys, 0), counts)
    expected = [tokenizer_of(any_model).decode([one]) for one in drawn.tolist()]
    assert found["completion"].tolist() == expected


@pytest.mark.parametrize("bad", [{"words": ""}, {"words": " "}, {"words": 4}, {"words": "a", "system": " "}])
def test_no_words_are_one_line(bad) -> None:
    with pytest.raises(sl.SteerlensError, match="Prompting"):
        sl.Prompting(**bad)


def test_words_are_refused_where_positions_matter(any_model) -> None:
    words = sl.Prompting("Tea.")
    vector = sl.actadd(any_model, " love", " hate", layer=1)
    for call in (
        lambda: sl.next_token_logits(any_model, "I went", words),
        lambda: sl.logit_shift(any_model, "I went", [vector, words]),
        lambda: sl.score(any_model, "I went", words),
        lambda: sl.Condition((sl.Injection(vector),), prompting=words),
    ):
        with pytest.raises(sl.SteerlensError, match="Prompting|words"):
            call()
    with pytest.raises(sl.SteerlensError, match="Prompting"), sl.steer(any_model, words):
        pass
