"""Chats with SmolLM2: its own template, tokenised once, and replies that are Hugging Face's, token by token."""

from __future__ import annotations

from typing import Any

import torch

import steerlens as sl
from steerlens.steering.prompts import read_prompt

CHAT = [
    {"role": "system", "content": "You answer in one short sentence."},
    {"role": "user", "content": "What is the capital of France?"},
]


def template_ids(model: Any) -> list[int]:
    found = model.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
    return [int(id) for id in found]


def test_a_chat_is_what_the_template_makes_of_it(real: Any) -> None:
    model = real()
    prompt = read_prompt(model, CHAT)
    assert list(prompt.ids) == template_ids(model)
    for role, message in (("system", CHAT[0]), ("user", CHAT[1])):
        assert model.tokenizer.decode([prompt.ids[i] for i in prompt.positions_of(role)]) == message["content"]


def test_a_greedy_reply(plain: Any, real: Any) -> None:
    """It ends where Hugging Face ends it, at <|im_end|>."""
    model = real()
    ids = template_ids(model)
    row = torch.tensor([ids])
    options = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 2}
    expected = plain().generate(row, attention_mask=torch.ones_like(row), **options)[0, len(ids) :].tolist()
    assert expected[-1] == 2, "the reply ends"
    frame = sl.generate(model, CHAT, n=1, max_new_tokens=24, temperature=0, frequency_penalty=0)
    reply = frame["completion"][0]
    assert "Paris" in reply
    # One token is as good as its text here: what the reply encodes to is what Hugging Face has chosen.
    assert model.tokenizer.encode(reply, add_special_tokens=False) == [id for id in expected if id != 2]
