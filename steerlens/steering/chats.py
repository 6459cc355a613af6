"""Chats as rendered by a model's own template, and where each message is in the text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerlens.arguments import listed, shown, text
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.tokens import tokenizer_of

# Stands in for the content of message n, to separate the template's own words from the messages'.
_MARK = "\ue000{}\ue001"


@dataclass(frozen=True)
class Message:
    """One message of a chat: who speaks ("system", "user", "assistant"), and what they say."""

    role: str
    content: str

    def __post_init__(self) -> None:
        text("the role of a message", self.role, empty=False)
        text("the content of a message", self.content)

    def as_dict(self) -> dict[str, str]:
        """The message in the form that templates take."""
        return {"role": self.role, "content": self.content}


Chat = tuple[Message, ...]


def is_chat(value: object) -> bool:
    """Whether a value is meant as one chat: a list of messages (dictionaries), even malformed ones."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, Mapping | Message) for one in value)


def read_chat(messages: Sequence[Mapping[str, str] | Message]) -> Chat:
    """A chat of at least one message.

    Raises:
        SteerlensError: a message without role or content, with further keys, or with content that is not text.
    """
    chat = []
    for place, one in enumerate(messages):
        if isinstance(one, Message):
            chat.append(one)
            continue
        if not isinstance(one, Mapping) or set(one) != {"role", "content"}:
            given = f"the keys {', '.join(map(str, one))}" if isinstance(one, Mapping) and one else shown(one)
            raise SteerlensError(
                f"message {place} of the chat has {given}; "
                'needs a role and a content, as in {"role": "user", "content": "Hello"}'
            )
        chat.append(Message(one["role"], one["content"]))
    if not chat:
        raise SteerlensError("the chat is empty; give at least one message")
    return tuple(chat)


def chat_text(chat: Chat) -> str:
    """A chat as people read it: one line per message."""
    return "\n".join(f"{message.role}: {message.content}" for message in chat)


def with_system(system: str, prompt: str | Sequence[Mapping[str, str] | Message]) -> list[dict[str, str]]:
    """The chat that asks in words for what steering does with vectors: `prompt` after a system message.

    Args:
        prompt: a text, which becomes the user's turn, or a chat, whose own system message is replaced.
    """
    system = text("system", system)
    chat = (Message("user", prompt),) if isinstance(prompt, str) else read_chat(listed("prompt", prompt, of="messages"))
    rest = chat[1:] if chat[0].role == "system" else chat
    return [message.as_dict() for message in (Message("system", system), *rest)]


def rendered(model: HookedModel, chat: Chat) -> str:
    """The chat as the tokenizer's template renders it, up to where the assistant's next reply begins.

    Raises:
        SteerlensError: a tokenizer without a template, or a chat that the template refuses.
    """
    tokenizer = tokenizer_of(model)
    if not getattr(tokenizer, "chat_template", None):
        raise SteerlensError(
            "this model's tokenizer has no chat template; give the prompt as text, or set tokenizer.chat_template"
        )
    return _applied(tokenizer, chat)


def _applied(tokenizer: Any, chat: Chat) -> str:
    from jinja2 import TemplateError

    try:
        messages = [message.as_dict() for message in chat]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError, TypeError) as error:
        roles = ", ".join(message.role for message in chat)
        raise SteerlensError(f"the model's chat template refuses a chat of {roles}: {error}") from None


def template_of(model: HookedModel, prompts: Iterable[object]) -> dict[str, str]:
    """What a vector's source says of the template that rendered its chats; nothing if none of `prompts` is a chat."""
    return {"template": template_hash(model)} if any(map(is_chat, prompts)) else {}


def template_hash(model: HookedModel) -> str:
    """Sixteen hexadecimal digits that identify a chat template; empty without one."""
    template = getattr(tokenizer_of(model), "chat_template", None)
    return hashlib.sha256(str(template).encode()).hexdigest()[:16] if template else ""


@dataclass(frozen=True)
class Span:
    """The tokens of one message's content in a rendered chat: `range(begin, stop)`, without the template's own."""

    role: str
    begin: int
    stop: int


def role_positions(spans: Sequence[Span], role: str, prompt: str = "") -> tuple[int, ...]:
    """The positions of what a role says in a chat, all its messages together.

    Args:
        prompt: how the message names the chat.

    Raises:
        SteerlensError: there are no words of that role.
    """
    found = tuple(place for span in spans if span.role == role for place in range(span.begin, span.stop))
    if not found:
        roles = ", ".join(dict.fromkeys(span.role for span in spans))
        has = f"a chat with words of {roles}" if roles else "no chat whose messages can be told apart"
        named = f"the prompt {prompt!r:.60}" if prompt else "the prompt"
        raise SteerlensError(
            f"there are no words of role {role!r}: {named} is {has}; "
            "give a chat with such a message, or another placement"
        )
    return found


def message_spans(model: HookedModel, chat: Chat, text: str) -> tuple[Span, ...]:
    """Where the content of each message is among the tokens of the rendered chat `text`.

    A message whose words the template changes, or an empty one, has no place. A token that holds characters of both a
    message and the template counts as the message's.
    """
    tokenizer = tokenizer_of(model)
    if not getattr(tokenizer, "is_fast", False):
        return ()  # only fast tokenizers know which characters a token covers
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    spans = []
    for message, (begin, stop) in zip(chat, _characters(tokenizer, chat, text), strict=True):
        inside = [place for place, (first, last) in enumerate(offsets) if first < stop and last > begin]
        if inside:
            spans.append(Span(message.role, inside[0], inside[-1] + 1))
    return tuple(spans)


def _characters(tokenizer: Any, chat: Chat, text: str) -> list[tuple[int, int]]:
    """The characters of each message's content in the rendered text; (0, 0) where they cannot be found."""
    marked = tuple(Message(message.role, _MARK.format(place)) for place, message in enumerate(chat))
    found: list[tuple[int, int]] = []
    try:
        rest, end = _applied(tokenizer, marked), 0
    except SteerlensError:
        return [(0, 0)] * len(chat)
    for place, message in enumerate(chat):
        before, mark, rest = rest.partition(_MARK.format(place))
        # Many templates strip the content.
        contents = (message.content, message.content.strip())
        begin = end + len(before)
        fits = mark and text[end:begin] == before
        content = next((one for one in contents if fits and text.startswith(one, begin)), None)
        if content is None:
            return [*found, *[(0, 0)] * (len(chat) - place)]
        end = begin + len(content)
        found.append((begin, end))
    return found
