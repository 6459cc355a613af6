"""Which tokens of a text are read: the last, the first that differs in a pair, a span, or the completion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.tokens import token_ids

Token = Literal["last", "differing", "completion"] | int | slice
"""Where the activations of a text are read (BOS is token 0):

- `"last"`: its last token;
- `"differing"`: the first token in which the texts of a pair differ (an answer's letter);
- `"completion"`: the mean over what follows the context, or, if no context is known, over all tokens from the first
  differing one on;
- a number: that token, counted from the end if negative; a slice: the mean over those tokens.
"""


@dataclass(frozen=True)
class TokenRow:
    """A text as token ids, and the span of them that is read (averaged if there are several)."""

    ids: list[int]
    begin: int
    end: int


def check_token(token: object) -> None:
    """Raise SteerlensError unless `token` is a choice of tokens."""
    known = token in ("last", "differing", "completion") if isinstance(token, str) else False
    number = isinstance(token, Integral) and not isinstance(token, bool)
    if not (known or number or isinstance(token, slice)):
        raise SteerlensError(
            f"token={token!r} is unknown; use 'last', 'differing', 'completion', a token's number, or a slice"
        )


def recorded_token(written: str) -> Token:
    """The choice of tokens that a vector's source has as text.

    Raises:
        SteerlensError: it is none.
    """
    if found := re.fullmatch(r"slice\((None|-?\d+), (None|-?\d+), (None|-?\d+)\)", written):
        return slice(*(None if one == "None" else int(one) for one in found.groups()))
    token: Token = int(written) if re.fullmatch(r"-?\d+", written) else written  # type: ignore[assignment]
    check_token(token)
    return token


def text_rows(model: HookedModel, texts: Sequence[object], token: Token) -> list[TokenRow]:
    """The rows of texts that are not in pairs.

    Raises:
        SteerlensError: a choice that needs pairs, or that a text is too short for.
    """
    check_token(token)
    if token in ("differing", "completion"):
        raise SteerlensError(f"token={token!r} needs pairs of texts; use 'last', a number or a slice")
    return [_row(prompt_ids(model, text), token, number) for number, text in enumerate(texts)]  # type: ignore[arg-type]


def contrast_rows(model: HookedModel, contrast: ContrastSet, token: Token) -> tuple[list[TokenRow], list[TokenRow]]:
    """The rows of the positive and of the negative texts.

    Raises:
        SteerlensError: a choice that needs pairs, or that a text is too short for; pairs of equal texts if it matters
            at which token they differ.
    """
    check_token(token)
    needs_context = token == "completion" and contrast.context is not None
    if not contrast.paired or not (token == "differing" or token == "completion"):
        return text_rows(model, contrast.positive, token), text_rows(model, contrast.negative, token)
    rows: tuple[list[TokenRow], list[TokenRow]] = ([], [])
    for number, pair in enumerate(zip(contrast.positive, contrast.negative, strict=True)):
        both = [prompt_ids(model, text) for text in pair]
        if needs_context:
            context = token_ids(model, contrast.context[number])  # type: ignore[index]
            begins = [_common(context, ids) for ids in both]
        else:
            begins = [_common(*both)] * 2
        for side, ids, begin in zip(rows, both, begins, strict=True):
            if begin >= len(ids):
                missing = "nothing follows the context" if needs_context else "no token differs"
                raise SteerlensError(
                    f"pair {number}: {missing} in one of the texts, so token={token!r} has nothing to read; "
                    "use token='last', or leave the pair out"
                )
            side.append(TokenRow(ids, begin, begin + 1 if token == "differing" else len(ids)))
    return rows


def _row(ids: list[int], token: Token, number: int) -> TokenRow:
    n = len(ids)
    if token == "last":
        return TokenRow(ids, n - 1, n)
    if isinstance(token, slice):
        if token.step not in (None, 1):
            raise SteerlensError("a slice of tokens must have a step of 1")
        begin, end, _ = token.indices(n)
    else:
        at = token.__index__()  # type: ignore[union-attr]
        begin = at if at >= 0 else n + at
        end = begin + 1
    if not 0 <= begin < end <= n:
        raise SteerlensError(f"text {number} has {n} tokens, none of which is token={token!r}; choose another")
    return TokenRow(ids, begin, end)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the common prefix of two rows."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
