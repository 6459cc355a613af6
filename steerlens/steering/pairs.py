"""Pairs of prompts: the contrast of Activation Addition, padded to one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.arguments import text
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model
from steerlens.steering.prompts import Prompt, frozen_prompt, prompt_text, read_prompt
from steerlens.steering.tokens import single_token, token_ids, token_strings


@dataclass(frozen=True)
class PromptPair:
    """The contrast of Activation Addition: what to steer towards minus what to steer away from.

    The shorter prompt is padded on the right with `pad` up to the length of the longer (ActAdd, arXiv 2308.10248,
    section 3: "we pad with spaces").

    Attributes:
        positive, negative: the two prompts, p₊ and p₋: texts, chats or token ids. One of them may be empty text.
        pad: `"space"`, or any text that is one token of the model (`"<|endoftext|>"`). Needed only if one prompt is
            shorter.
    """

    positive: Any  # a PromptLike; what comes out is text, a tuple of messages, or one of token ids
    negative: Any
    pad: Literal["space"] | str = "space"

    def __post_init__(self) -> None:
        for field in ("positive", "negative"):
            object.__setattr__(self, field, frozen_prompt(f"PromptPair.{field}", getattr(self, field)))
        text("PromptPair.pad", self.pad)
        if not self.positive and not self.negative:
            raise SteerlensError(
                "both prompts of the pair are empty; give at least one, as in PromptPair('Love', 'Hate')"
            )

    def __str__(self) -> str:
        return " − ".join(repr(prompt_text(prompt)) for prompt in (self.positive, self.negative))

    def read(self, model: HookedModel) -> tuple[Prompt, Prompt]:
        """The two prompts as the model reads them, unpadded."""
        require_model(model)
        first, second = (
            Prompt(tuple(token_ids(model, "")), "", "", 0) if prompt == "" else read_prompt(model, prompt)
            for prompt in (self.positive, self.negative)
        )
        return first, second

    def padded(self, model: HookedModel) -> PaddedPair:
        """The two token rows of equal length that a model will be run on."""
        rows = [list(prompt.ids) for prompt in self.read(model)]
        length = max(map(len, rows))
        if length == 0:
            raise SteerlensError(f"the pair {self} tokenises to nothing; give prompts of at least one token")
        padding = [length - len(row) for row in rows]
        # Prompts of equal length need no pad, so the model need not have one.
        pad = single_token(model, " " if self.pad == "space" else self.pad) if any(padding) else 0
        filled = [row + [pad] * count for row, count in zip(rows, padding, strict=True)]
        return PaddedPair(
            ids=torch.tensor(filled, device=model.cfg.device),
            positive=token_strings(model, filled[0]),
            negative=token_strings(model, filled[1]),
            padding=(padding[0], padding[1]),
        )


@dataclass(frozen=True, eq=False)
class PaddedPair:
    """A tokenised contrast. `print` shows it position by position.

    Attributes:
        ids: token ids, positive row first, padded on the right to the same length.
        positive, negative: the tokens as text.
        padding: how many pad tokens were added to each row.
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
