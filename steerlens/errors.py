"""The one error type that users see: a single line that says what was given, what was needed, what to do."""

from __future__ import annotations

import unicodedata

# Marks, embeddings, overrides and isolates of the direction of writing.
_DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# A prompt or path quoted in full may be megabytes long.
_LONGEST = 1500


class SteerlensError(ValueError):
    """Bad input, in one line. The command line prints it and exits with code 2; nothing was changed or written.

    Whatever went into the message (a label from a file, another program's error), it is one line without control
    characters, and of bounded length.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(in_one_line(str(message)))


def in_one_line(text: str, *, most: int = _LONGEST) -> str:
    """The text with line breaks as spaces, other control characters escaped, and its middle cut if it is long."""
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} … {text[-most // 3 :]}"
    return text if text.isprintable() else visible(" ".join(text.splitlines()))


def visible(text: str) -> str:
    """The text with characters that would affect a terminal or the text around them escaped, as in `\\x1b`.

    These are control characters, halves of surrogate pairs, line breaks, and marks that change the writing direction.
    """
    return text if text.isprintable() else "".join(ascii(c)[1:-1] if _acts(c) else c for c in text)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTIONS


def first_line(error: BaseException) -> str:
    """An error's message as one line of at most 200 characters; the error's type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
