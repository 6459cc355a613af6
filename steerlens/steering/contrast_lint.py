"""Checks of a contrast set for what is known to spoil steering vectors, before anything is run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.tokens import continuation_ids, token_strings

Finding = tuple[str, int, str, str]
"""check, pair (−1: the set as a whole), side, message."""

_SURE = 0.01
_CHOICE = re.compile(r"\(?\b([A-Z])\b\)?[.\s]*$")


def lint(
    model: HookedModel,
    positive: Sequence[Any],
    negative: Sequence[Any],
    context: Sequence[str] | None,
    *,
    paired: bool,
    other: tuple[Sequence[Any], Sequence[Any], Sequence[str] | None] | None = None,
) -> list[Finding]:
    """The findings, set by set and then pair by pair; see `ContrastSet.lint` for the checks."""
    too_long: list[Finding] = []
    lengths: list[list[int]] = [[], []]
    for side, texts, counts in zip(("positive", "negative"), (positive, negative), lengths, strict=True):
        for number, text in enumerate(texts):
            try:
                counts.append(len(prompt_ids(model, text)))
            except SteerlensError as error:  # as extraction would say
                counts.append(model.cfg.n_ctx + 1)
                too_long.append(("unusable", number, side, str(error)))
    found = [
        *too_long,
        *_longer_side(lengths, paired),
        *_answer_letter(positive, negative),
        *_lengths(lengths, paired),
        *_duplicates(positive, negative, paired),
        *_leading_spaces(model, positive, negative, context),
        *(_split_tokens(model, positive, negative) if paired else ()),
    ]
    if other is not None:
        found.extend(_leakage((positive, negative, context), other))
    return sorted(found, key=lambda one: one[1] >= 0)  # what holds of the whole set first


def same_text(text: Any) -> str:
    """A text without what makes no difference to a reader (case, white space), to detect copies."""
    return " ".join(plain(text).casefold().split())


def plain(text: Any) -> str:
    """A chat as one text, message by message; a text as it is."""
    if isinstance(text, str):
        return text
    return "\n".join(str(part.get("content", "")) if isinstance(part, Mapping) else str(part) for part in text)


def _lengths(lengths: Sequence[Sequence[int]], paired: bool) -> Iterator[Finding]:
    if paired:
        for pair, (plus, minus) in enumerate(zip(*lengths, strict=True)):
            if plus != minus:
                yield "length", pair, "", f"the texts have {plus} and {minus} tokens"


def _longer_side(lengths: Sequence[Sequence[int]], paired: bool) -> Iterator[Finding]:
    """If one side is longer, the direction is partly one of length."""
    if paired:
        longer = sum(plus > minus for plus, minus in zip(*lengths, strict=True))
        shorter = sum(plus < minus for plus, minus in zip(*lengths, strict=True))
    else:  # of all pairs of one of each, the texts of one side against the other's median
        middle = sorted(lengths[1])[len(lengths[1]) // 2]
        longer, shorter = (sum(op(n, middle) for n in lengths[0]) for op in (int.__gt__, int.__lt__))
    if _sign_test(longer, shorter) < _SURE:
        side = "positive" if longer > shorter else "negative"
        share = max(longer, shorter) / (longer + shorter)
        yield (
            "longer side",
            -1,
            side,
            f"the {side} text is the longer one in {share:.0%} of those that differ in length",
        )


def _answer_letter(positive: Sequence[Any], negative: Sequence[Any]) -> Iterator[Finding]:
    for side, texts in (("positive", positive), ("negative", negative)):
        letters = [match.group(1) for text in texts if (match := _CHOICE.search(plain(text)))]
        if len(letters) < len(texts) / 2:
            continue
        kinds = sorted(set(letters))
        most = max(kinds, key=letters.count)
        count = letters.count(most)
        # Against all others together, with odds by their number (two choices if only one was seen).
        if _sign_test(count, (len(letters) - count) / max(len(kinds) - 1, 1)) < _SURE:
            yield "answer letter", -1, side, f"{most} is the answer in {count / len(letters):.0%} of the {side} texts"


def _duplicates(positive: Sequence[Any], negative: Sequence[Any], paired: bool) -> Iterator[Finding]:
    sides = [[same_text(text) for text in texts] for texts in (positive, negative)]
    if paired:
        seen: dict[tuple[str, str], int] = {}
        for pair, both in enumerate(zip(*sides, strict=True)):
            if both[0] == both[1]:
                yield "duplicate", pair, "", "the two texts are the same"
            first = seen.setdefault(both, pair)
            if first != pair:
                yield "duplicate", pair, "", f"the same as pair {first}"
        return
    for side, texts in zip(("positive", "negative"), sides, strict=True):
        known: dict[str, int] = {}
        for number, text in enumerate(texts):
            if known.setdefault(text, number) != number:
                yield "duplicate", number, side, f"the same as text {known[text]} of this side"
    for text in sorted(set(sides[0]) & set(sides[1])):
        yield "duplicate", sides[0].index(text), "positive", f"also a negative text: {text!r:.50}"


def _leading_spaces(
    model: HookedModel, positive: Sequence[Any], negative: Sequence[Any], context: Sequence[str] | None
) -> Iterator[Finding]:
    for side, texts in (("positive", positive), ("negative", negative)):
        for pair, text in enumerate(texts):
            if not isinstance(text, str):
                continue
            if context is not None:
                begin, rest = context[pair], text[len(context[pair]) :]
                if begin[-1:].isalnum() and rest[:1].isalnum():
                    yield "leading space", pair, side, f"no space between the context and {rest!r:.30}"
            elif len(text.split()) == 1 and text[0].isalpha():
                inside, alone = (len(continuation_ids(model, part)) for part in (f" {text.strip()}", text))
                if inside == 1:
                    more = "" if alone == 1 else f" ({alone} tokens as it is)"
                    yield (
                        "leading space",
                        pair,
                        side,
                        f"{text!r} is not the token {' ' + text.strip()!r} of texts{more}",
                    )


def _split_tokens(model: HookedModel, positive: Sequence[Any], negative: Sequence[Any]) -> Iterator[Finding]:
    """The first word that differs, if it is several tokens: its activations are those of a half-read word."""
    for pair, texts in enumerate(zip(positive, negative, strict=True)):
        plus, minus = map(plain, texts)
        at = next((i for i, (a, b) in enumerate(zip(plus, minus, strict=False)) if a != b), min(len(plus), len(minus)))
        for side, text in (("positive", plus), ("negative", minus)):
            begin = max((match.end() for match in re.finditer(r"\W", text[:at])), default=0)
            found = re.match(r"\w+", text[begin:])
            if found is None:
                continue
            word = f" {found.group()}" if begin and text[begin - 1] == " " else found.group()
            ids = continuation_ids(model, word)
            if len(ids) > 1:
                pieces = ", ".join(repr(piece) for piece in token_strings(model, ids))
                yield "split token", pair, side, f"the word that differs is {len(ids)} tokens: {pieces}"


def _leakage(
    mine: tuple[Sequence[Any], Sequence[Any], Sequence[str] | None],
    other: tuple[Sequence[Any], Sequence[Any], Sequence[str] | None],
) -> Iterator[Finding]:
    theirs = {same_text(text) for texts in other for text in texts or () if text}
    for side, texts in zip(("positive", "negative", "context"), mine, strict=True):
        for pair, text in enumerate(texts or ()):
            if text and same_text(text) in theirs:
                named = "" if side == "context" else side
                yield "leakage", pair, named, f"the held-out set has the same {'context' if not named else 'text'}"


def _sign_test(more: float, fewer: float) -> float:
    """The two-sided probability of a split at least this uneven in `more + fewer` tosses of a coin."""
    n, least = round(more + fewer), min(round(more), round(fewer))
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    return min(1.0, 2 * tail)
