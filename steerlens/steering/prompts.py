"""Prompts as token rows: tokenise with the model's own rules, pad a contrast to one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.arguments import text as read_text
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel


@dataclass(frozen=True)
class PromptPair:
    """The contrast of Activation Addition: what to steer towards minus what to steer away from.

    The shorter prompt is padded on the right with `pad` up to the length of the longer (ActAdd, arXiv 2308.10248,
    section 3: "we pad with spaces").

    Attributes:
        positive, negative: the two prompts, p₊ and p₋. One of them may be empty.
        pad: `"space"`, or any text that is one token of the model (`"<|endoftext|>"`).
    """

    positive: str
    negative: str
    pad: Literal["space"] | str = "space"

    def __post_init__(self) -> None:
        for field in ("positive", "negative", "pad"):
            read_text(f"PromptPair.{field}", getattr(self, field))
        if not self.positive and not self.negative:
            raise SteerlensError(
                "both prompts of the pair are empty; give at least one, as in PromptPair('Love', 'Hate')"
            )

    def __str__(self) -> str:
        return f"{self.positive!r} − {self.negative!r}"

    def padded(self, model: HookedModel) -> PaddedPair:
        """The two token rows of equal length that a model will be run on."""
        rows = [token_ids(model, text) for text in (self.positive, self.negative)]
        pad = single_token(model, " " if self.pad == "space" else self.pad)
        length = max(map(len, rows))
        if length == 0:
            raise SteerlensError(f"the pair {self} tokenises to nothing; give prompts of at least one token")
        if length > model.cfg.n_ctx:
            raise SteerlensError(
                f"the longer prompt has {length} tokens but the model reads {model.cfg.n_ctx}; shorten it"
            )
        filled = [row + [pad] * (length - len(row)) for row in rows]
        return PaddedPair(
            ids=torch.tensor(filled, device=model.cfg.device),
            positive=token_strings(model, filled[0]),
            negative=token_strings(model, filled[1]),
            padding=(length - len(rows[0]), length - len(rows[1])),
        )


@dataclass(frozen=True, eq=False)
class PaddedPair:
    """A tokenised contrast. `print` shows it position by position.

    Attributes:
        ids: token ids, positive row first, padded on the right to the same length.
        positive, negative: the tokens as text.
        padding: how many pad tokens each row got.
    """

    ids: Int[Tensor, "2 pos"]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    padding: tuple[int, int]

    def __str__(self) -> str:
        lines = [
            f"{position:>3}  {plus.replace(' ', '␣'):<16} {minus.replace(' ', '␣')}"
            for position, (plus, minus) in enumerate(zip(self.positive, self.negative, strict=True))
        ]
        return "\n".join(["pos  positive         negative", *lines])


def token_ids(model: HookedModel, text: str) -> list[int]:
    """Token ids of one text, with BOS where the model takes one by default.

    Raises:
        SteerlensError: text that is no string, or longer than the model's context (never truncated silently).
    """
    tokenizer = _tokenizer(model)
    # Not model.to_tokens: it truncates without a word and adds no end of its own that could be turned off.
    ids = _encoded(tokenizer, text, special=True)
    bos = tokenizer.bos_token_id
    has_bos = bool(model.cfg.tokenizer_prepends_bos)
    wants_bos = bool(model.cfg.default_prepend_bos)
    if wants_bos and not has_bos and bos is not None:
        ids = [bos, *ids]
    elif has_bos and not wants_bos and ids and ids[0] == bos:
        ids = ids[1:]
    if len(ids) > model.cfg.n_ctx:
        raise SteerlensError(f"the text has {len(ids)} tokens but the model reads {model.cfg.n_ctx}; shorten it")
    return ids


def continuation_ids(model: HookedModel, text: str) -> list[int]:
    """Token ids of a text that goes on from another one: no BOS, nothing added."""
    return _encoded(_tokenizer(model), text, special=False)


def _encoded(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    return list(tokenizer(read_text("a prompt", text), add_special_tokens=special)["input_ids"])


def prompt_ids(model: HookedModel, prompt: str) -> list[int]:
    """Token ids of a prompt to steer; an empty prompt is an error, since there is nothing to inject into."""
    ids = token_ids(model, prompt)
    if prompt == "" or not ids:
        raise SteerlensError("the prompt is empty; give a text of at least one token")
    return ids


def single_token(model: HookedModel, text: str) -> int:
    """The id of `text` if it is exactly one token.

    Raises:
        SteerlensError: it is several; the message names the pieces.
    """
    ids = continuation_ids(model, text)
    if len(ids) != 1:
        pieces = ", ".join(repr(piece) for piece in token_strings(model, ids))
        raise SteerlensError(
            f"{text!r} is {len(ids)} tokens for this model ({pieces or 'nothing'}); "
            "give a text that is one token (a leading space often matters)"
        )
    return ids[0]


def token_strings(model: HookedModel, ids: Sequence[int]) -> tuple[str, ...]:
    """Each token as text, in order; bytes that are no whole character show as `�`."""
    tokenizer = _tokenizer(model)
    return tuple(tokenizer.decode([int(i)], clean_up_tokenization_spaces=False) for i in ids)


def pad_left(
    rows: Sequence[Sequence[int]], *, pad: int, device: torch.device | str
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Token rows aligned at their ends, and their attention mask (1 real, 0 padding)."""
    width = max(map(len, rows))
    tokens = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def pad_id(model: HookedModel) -> int:
    """Some valid token id to fill rows with; masked wherever it is used."""
    tokenizer = _tokenizer(model)
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def end_id(model: HookedModel) -> int | None:
    """The end-of-text token id, if the tokenizer has one."""
    end = _tokenizer(model).eos_token_id
    return None if end is None else int(end)


def _tokenizer(model: HookedModel):  # type: ignore[no-untyped-def]
    if model.tokenizer is None:
        raise SteerlensError("this model has no tokenizer; load it with one, or call model.set_tokenizer(...)")
    return model.tokenizer
