"""`Prompting`: words in place of vectors, the control that asks whether a sentence would have done the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steerlens.arguments import text
from steerlens.errors import SteerlensError, visible
from steerlens.models import HookedModel, require_model
from steerlens.steering.chats import Chat, Message
from steerlens.steering.pairs import PromptPair
from steerlens.steering.prompts import Prompt, PromptLike, read_prompt
from steerlens.steering.tokens import continuation_ids, token_ids

# A pair's positive side of more words than this is a sentence, and stands for itself as a system message.
_FEW_WORDS = 3


@dataclass(frozen=True)
class Prompting:
    """What a model is told in words, where others steer it with vectors.

    A condition like any other for `generate` and `sweep`: `sl.generate(model, prompts, [None, 5 * love, sl.Prompting(
    "Love is all there is.")])`. A text, or token ids, has the words in front; a chat has them as its system message
    (before one that is already there), or at the beginning of the user's first turn if the model's template takes no
    system message.

    Decoding is the same as without them: the same random numbers for a prompt and sample number, and a frequency
    penalty that counts the prompt as it was given, so that words are not penalised for being in the instruction.
    Surprise is measured after the prompt as it was given, too: what counts as damage is the same for words and vectors.

    Attributes:
        words: what stands in front of a text; a space is put between where there is no white space.
        system: what a chat is told, if that is something else.
    """

    words: str
    system: str | None = None

    def __post_init__(self) -> None:
        for name in ("words", "system"):
            value = getattr(self, name)
            if name == "system" and value is None:
                continue
            if not text(f"Prompting.{name}", value).strip():
                raise SteerlensError(f"Prompting.{name} is empty; give the words that stand in front of the prompt")

    @property
    def title(self) -> str:
        """What tables call it."""
        told = visible(self.words.strip())
        return f"prompting: {told}" if len(told) <= 60 else f"prompting: {told[:59]}…"

    def before(self, model: HookedModel, prompt: PromptLike) -> Prompt:
        """The prompt with the words in front.

        Raises:
            SteerlensError: it exceeds the model's context.
        """
        require_model(model)
        prompt = read_prompt(model, prompt)
        if prompt.chat:
            return self._told(model, prompt.chat)
        front = self.words if self.words[-1].isspace() else f"{self.words} "
        if prompt.ids == tuple(token_ids(model, prompt.written)):
            return read_prompt(model, front + prompt.written)
        inner = continuation_ids(model, front)
        return read_prompt(model, [*prompt.ids[: prompt.n_bos], *inner, *prompt.ids[prompt.n_bos :]])

    def _told(self, model: HookedModel, chat: Chat) -> Prompt:
        words = self.words if self.system is None else self.system
        first, rest = (chat[0], chat[1:]) if chat[0].role == "system" else (None, chat)
        system = words if first is None else f"{words}\n\n{first.content}"
        try:
            found = read_prompt(model, [Message("system", system), *rest])
            if words.strip() in found.written:
                return found
        except SteerlensError:
            if first is not None:  # the template took one before
                raise
        place = next((number for number, one in enumerate(chat) if one.role == "user"), 0)
        turn = Message(chat[place].role, f"{words}\n\n{chat[place].content}")
        return read_prompt(model, [*chat[:place], turn, *chat[place + 1 :]])


def prompting_of(pair: PromptPair) -> Prompting | None:
    """What a pair's positive side says in words; None if it is not text.

    In front of a text stands the positive side itself. A chat is told to talk about it where it is a word or two; a
    longer one is the system message as it is.
    """
    positive = pair.positive
    if not isinstance(positive, str) or not positive.strip():
        return None
    words = positive.strip()
    return Prompting(positive, words if len(words.split()) > _FEW_WORDS else f"Talk about {words}.")


def prompted(
    model: HookedModel, prompts: Sequence[Prompt], prompting: Prompting, *, max_new_tokens: int
) -> list[Prompt]:
    """The prompts with the words in front.

    Raises:
        SteerlensError: one of them, with its completion, exceeds the model's context.
    """
    found = []
    for prompt in prompts:
        try:
            found.append(prompting.before(model, prompt))
        except SteerlensError as error:
            raise SteerlensError(f"{prompting.title!r} does not fit before {prompt.text!r:.60}: {error}") from None
    longest = max(map(len, found))
    if longest + max_new_tokens > model.cfg.n_ctx:
        raise SteerlensError(
            f"{prompting.title!r} makes a prompt of {longest} tokens, and with {max_new_tokens} new ones it does not "
            f"fit the model's context of {model.cfg.n_ctx}; give fewer words"
        )
    return found
