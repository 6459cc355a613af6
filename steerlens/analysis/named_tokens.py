"""Tokens that a user names by words: each word one token, or a clear word about what it is instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from steerlens.arguments import choice, listed, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.tokens import continuation_ids, token_strings

Words = str | int | Sequence[str | int]
"""A word, a token id, or several of them. A leading space matters: `" wedding"` and `"wedding"` are two tokens."""

Pieces = Literal["error", "first", "all"]
"""What becomes of a word that is several tokens: an error, its first piece, or the set of its pieces."""


def named_tokens(model: HookedModel, words: Words, *, pieces: Pieces = "error") -> dict[int, str]:
    """Token ids with their text, in the order named; each once.

    Raises:
        SteerlensError: nothing named, a text of no token, an id outside the vocabulary, or a word of several tokens
            (unless `pieces` says what to do with it); the message names the pieces.
    """
    choice("pieces", pieces, ("error", "first", "all"))
    one = isinstance(words, str) or (hasattr(words, "__index__") and getattr(words, "ndim", 0) == 0)
    given = [words] if one else listed("the wanted words", words, of="words or token ids")
    if not given:
        raise SteerlensError("no words are named; give at least one, such as ' wedding' (the leading space matters)")
    ids: list[int] = []
    for word in given:
        if isinstance(word, str):
            ids.extend(_word_ids(model, word, pieces))
        else:
            number = whole_number("a wanted word that is no text (a token id)", word)
            if not 0 <= number < model.cfg.d_vocab:
                raise SteerlensError(f"token {number} is outside the vocabulary; use 0 to {model.cfg.d_vocab - 1}")
            ids.append(number)
    unique = list(dict.fromkeys(ids))
    return dict(zip(unique, token_strings(model, unique), strict=True))


def followed_tokens(model: HookedModel, words: Words, *, pieces: Pieces = "error") -> dict[int, str]:
    """As `named_tokens`, but an empty list names none."""
    choice("pieces", pieces, ("error", "first", "all"))
    if isinstance(words, list | tuple) and not words:
        return {}
    return named_tokens(model, words, pieces=pieces)


def _word_ids(model: HookedModel, word: str, pieces: Pieces) -> list[int]:
    ids = continuation_ids(model, word)
    if not ids:
        raise SteerlensError("a word is empty; give a text of at least one token")
    if len(ids) == 1 or pieces == "all":
        return ids
    if pieces == "first":
        return ids[:1]
    texts = [repr(piece) for piece in token_strings(model, ids)]
    spaced = not word.startswith(" ") and len(continuation_ids(model, " " + word)) == 1
    hint = f"{' ' + word!r} would be one token; or " if spaced else ""
    raise SteerlensError(
        f"{word!r} is {len(ids)} tokens for this model ({', '.join(texts)}); "
        f"{hint}pieces='first' takes {texts[0]} alone, pieces='all' the set of them"
    )
