"""Prompts: a text, a chat or token ids, read into one value that everything works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

from torch import Tensor

from steerlens.arguments import listed, shown, text, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.chats import (
    Chat,
    Message,
    Span,
    chat_text,
    is_chat,
    message_spans,
    read_chat,
    rendered,
    role_positions,
    template_hash,
)
from steerlens.steering.tokens import checked_ids, continuation_ids, decoded, n_bos, token_ids, tokenizer_of

PromptLike: TypeAlias = Union[str, Sequence[Mapping[str, str] | Message], Sequence[int], Tensor, "Prompt"]
"""A prompt: a text; a chat, as a list of `{"role": …, "content": …}`; or token ids, as a list of whole numbers or a
tensor of one dimension. Several prompts are a list of those."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as a model reads it.

    Attributes:
        ids: its tokens, BOS included.
        text: what tables show for it: the text itself, a chat as "role: content" lines, token ids as their text.
        written: the text that the tokens after BOS stand for: a chat as its template writes it.
        n_bos: how many tokens at the beginning are BOS.
        spans: where the messages of a chat stand; none for other prompts.
        chat: the messages of a chat; none for other prompts.
        template: the hash of the template that wrote the chat; empty for other prompts.
    """

    ids: tuple[int, ...]
    text: str
    written: str
    n_bos: int
    spans: tuple[Span, ...] = ()
    chat: Chat = ()
    template: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def positions_of(self, role: str) -> tuple[int, ...]:
        """The positions of what a role says, all its messages together.

        Raises:
            SteerlensError: the prompt has no words of that role.
        """
        return role_positions(self.spans, role, self.text)


def read_prompt(model: HookedModel, prompt: PromptLike) -> Prompt:
    """One prompt, tokenised once.

    A chat is rendered by the tokenizer's template with the generation prompt, as Hugging Face's `apply_chat_template`
    does; a text gets BOS where the model takes one; token ids are taken as they are.

    Raises:
        SteerlensError: something else, an empty prompt, one that is longer than the model's context, a token outside
            the embedding, a chat for a tokenizer without a template.
    """
    if isinstance(prompt, Prompt):
        return prompt
    if isinstance(prompt, str):
        ids = token_ids(model, prompt)
        if prompt == "" or not ids:
            raise SteerlensError("the prompt is empty; give a text of at least one token")
        return Prompt(tuple(ids), prompt, prompt, n_bos(model, ids))
    if is_chat(prompt):
        return _chat_prompt(model, read_chat(prompt))  # type: ignore[arg-type]
    return _ids_prompt(model, prompt)


def read_prompts(model: HookedModel, prompts: PromptLike | Sequence[PromptLike]) -> list[Prompt]:
    """One prompt, or several, as a list of at least one; see `is_one_prompt`."""
    if is_one_prompt(prompts):
        return [read_prompt(model, prompts)]  # type: ignore[arg-type]
    several = listed("prompts", prompts, of="prompts")
    if not several:
        raise SteerlensError("the list of prompts is empty; give at least one")
    return [read_prompt(model, prompt) for prompt in several]


def is_one_prompt(prompts: object) -> bool:
    """Whether a value is one prompt and no list of them.

    A list of dictionaries is one chat, a list of whole numbers one row of token ids; lists of lists are several.
    """
    if isinstance(prompts, str | Prompt | Mapping | Message) or is_chat(prompts):
        return True
    if isinstance(prompts, Tensor):
        return True
    if hasattr(prompts, "__array_interface__"):
        return prompts.dtype.kind in "iufb"  # type: ignore[attr-defined]  # one of texts is a list of them
    return isinstance(prompts, list | tuple) and bool(prompts) and all(map(_is_number, prompts))


def prompt_ids(model: HookedModel, prompt: PromptLike) -> list[int]:
    """Token ids of a prompt to steer; an empty prompt is an error, since there is nothing to inject into."""
    return list(read_prompt(model, prompt).ids)


def following_ids(model: HookedModel, prompt: Prompt, continuation: str) -> list[int]:
    """Token ids of a text that goes on from a prompt, tokenised where it stands."""
    return continuation_ids(model, continuation, after=(prompt.written, prompt.ids))


def prompt_text(prompt: PromptLike) -> str:
    """A prompt as people read it, without a model: token ids show as their numbers."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Prompt):
        return prompt.text
    frozen = frozen_prompt("a prompt", prompt)
    return chat_text(frozen) if is_chat(frozen) else str(list(frozen))  # type: ignore[arg-type]


def frozen_prompt(name: str, prompt: PromptLike) -> str | Chat | tuple[int, ...]:
    """A prompt as a value that nobody can change: text, messages or token ids.

    Raises:
        SteerlensError: it is none of these.
    """
    if isinstance(prompt, str):
        return text(name, prompt)
    if isinstance(prompt, Prompt):
        return prompt.chat or prompt.ids
    return read_chat(prompt) if is_chat(prompt) else tuple(_numbers(name, prompt))  # type: ignore[arg-type]


def plain_prompt(prompt: PromptLike) -> Any:
    """A prompt as JSON has it: text, a list of dictionaries, or a list of numbers."""
    frozen = frozen_prompt("a prompt", prompt)
    if isinstance(frozen, str):
        return frozen
    return [one.as_dict() if isinstance(one, Message) else one for one in frozen]


def _chat_prompt(model: HookedModel, chat: Chat) -> Prompt:
    written = rendered(model, chat)
    # The template has said all there is, BOS included.
    ids = checked_ids(model, tokenizer_of(model)(written, add_special_tokens=False)["input_ids"])
    if not ids:
        raise SteerlensError("the model's chat template makes an empty text of this chat")
    spans = message_spans(model, chat, written)
    return Prompt(tuple(ids), chat_text(chat), written, n_bos(model, ids), spans, chat, template_hash(model))


def _ids_prompt(model: HookedModel, prompt: object) -> Prompt:
    ids = checked_ids(model, _numbers("a prompt", prompt))
    if not ids:
        raise SteerlensError("the prompt is empty; give at least one token")
    start = n_bos(model, ids)
    written = decoded(tokenizer_of(model), ids[start:])
    return Prompt(tuple(ids), written or decoded(tokenizer_of(model), ids), written, start)


def _numbers(name: str, prompt: object) -> list[int]:
    dimensions = getattr(prompt, "ndim", 1)
    if dimensions > 1:
        raise SteerlensError(
            f"{name} of token ids has one dimension, got {shown(prompt)}; give its rows as a list, without padding"
        )
    if not isinstance(prompt, list | tuple | range) and not hasattr(prompt, "dtype"):
        raise SteerlensError(f"{name} must be text, a chat (a list of messages) or token ids, got {shown(prompt)}")
    try:
        items = prompt.tolist() if hasattr(prompt, "tolist") else list(prompt)  # type: ignore[call-overload]
    except (RuntimeError, NotImplementedError):  # a sparse tensor, or one on the meta device
        raise SteerlensError(
            f"{name} of token ids must be a plain tensor with its numbers in memory, got {shown(prompt)}"
        ) from None
    if not isinstance(items, list) or not all(map(_is_number, items)):
        raise SteerlensError(f"{name} must be text, a chat (a list of messages) or token ids, got {shown(prompt)}")
    return [whole_number("a token id", one) for one in items]


def _is_number(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0
