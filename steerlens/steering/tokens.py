"""Texts as token rows and back, whatever the tokenizer does at the start and end of a text.

Tokenizers add things around a text: BOS in front, EOS at the end, and some (Llama 2's) a space before its first word.
Here a prompt has BOS at most once and nothing after it, since all prompts are continued; and a text in the middle of a
sequence is tokenised, and shown, as it stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.arguments import shown, text
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel

# Texts after which a continuation is tried; which of them is a separate token depends on the tokenizer.
_ANCHORS = ("\n", ".", ",", ":", ")", "a", "0", "e")


def token_ids(model: HookedModel, prompt: str) -> list[int]:
    """Token ids of one text, with BOS where the model takes one by default.

    BOS appears once, even if the text begins with it; an EOS that the tokenizer appends is dropped.

    Raises:
        SteerlensError: text that is not a string, is longer than the model's context (never truncated silently), or has
            a token that the model has no embedding for.
    """
    tokenizer = tokenizer_of(model)
    ids = encoded(tokenizer, prompt)
    start = start_ids(model)
    written = next((n for n in range(len(start), 0, -1) if ids[:n] == start[-n:]), 0)
    return checked_ids(model, start[: len(start) - written] + ids)


def start_ids(model: HookedModel) -> list[int]:
    """What comes before every text: BOS if the model takes one, and whatever else the tokenizer puts there."""
    tokenizer = tokenizer_of(model)
    bos = tokenizer.bos_token_id
    # Not the configuration's `tokenizer_prepends_bos`: TransformerLens takes an appended EOS for BOS.
    plain, whole = encoded(tokenizer, "a"), list(tokenizer("a")["input_ids"])
    places = [n for n in range(len(whole) - len(plain) + 1) if plain and whole[n : n + len(plain)] == plain]
    start = whole[: places[0]] if places else [one for one in whole[:1] if one == bos]
    if not model.cfg.default_prepend_bos:
        return [one for one in start if one != bos]
    return start if bos is None or bos in start else [bos, *start]


def bos_ids(model: HookedModel) -> tuple[int, ...]:
    """The ids that count as BOS at the beginning of a row."""
    if (said := getattr(model, "bos_ids", None)) is not None:  # a bare model, which has no tokenizer to be asked
        return tuple(said)
    tokenizer = tokenizer_of(model)
    bos = tokenizer.bos_token_id
    return tuple(dict.fromkeys([*([] if bos is None else [int(bos)]), *start_ids(model)]))


def n_bos(model: HookedModel, ids: Sequence[int]) -> int:
    """How many tokens at the beginning of a row are BOS, judged by the tokens: one written in the text counts too."""
    known = bos_ids(model)
    return next((place for place, one in enumerate(ids) if int(one) not in known), len(ids))


def is_bos(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
) -> Bool[Tensor, "batch pos"]:
    """Where each row of a batch has its BOS: the leading real tokens that are BOS. The host does not wait."""
    known = torch.tensor(bos_ids(model), dtype=tokens.dtype, device=tokens.device)
    real = torch.ones_like(tokens, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    return ((tokens[..., None] == known).any(-1) | ~real).long().cumprod(-1).bool() & real


def continuation_ids(
    model: HookedModel, continuation: str, *, after: tuple[str, Sequence[int]] | None = None
) -> list[int]:
    """Token ids of a text that continues another one, tokenised in place. It may have any length.

    Args:
        after: the text before it and its tokens. These do not change: if the whole text has a token across the seam,
            the continuation is tokenised as it would be after any text. None: after any text.
    """
    tokenizer = tokenizer_of(model)
    if after is not None:
        before, ids = after
        whole = encoded(tokenizer, before + text("a continuation", continuation))
        seam = _ends_at(tokenizer, before, ids, whole)
        if seam is not None:
            return checked_ids(model, whole[seam:], any_length=True)
    return checked_ids(model, _inner_ids(tokenizer, continuation), any_length=True)


def _ends_at(tokenizer: Any, before: str, ids: Sequence[int], whole: Sequence[int]) -> int | None:
    """Where the tokens `ids` of the text `before` end in those of a longer text; None if they are not among them."""
    body = encoded(tokenizer, before)  # `ids` may have a BOS that is not written in the text
    same = bool(body) and list(ids[-len(body) :]) == body == list(whole[: len(body)])
    return len(body) if same and len(whole) > len(body) else None


def _inner_ids(tokenizer: Any, continuation: str) -> list[int]:
    plain = encoded(tokenizer, continuation)
    if not plain or not adds_space(tokenizer):
        return plain
    for anchor in _ANCHORS:
        before, whole = encoded(tokenizer, anchor), encoded(tokenizer, anchor + continuation)
        if before and len(whole) > len(before) and whole[: len(before)] == before:
            return whole[len(before) :]
    return plain


def adds_space(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a space before every text, so that a text has other tokens inside another one."""
    for anchor in _ANCHORS:
        before, whole = encoded(tokenizer, anchor), encoded(tokenizer, anchor + "x")
        if before and len(whole) > len(before) and whole[: len(before)] == before:
            return whole[len(before) :] != encoded(tokenizer, "x")
    return False


def reader_after(model: HookedModel, after: Sequence[int] = ()) -> Callable[[Sequence[int]], str]:
    """A function from tokens to their text as it is after the tokens `after` (or after any text)."""
    tokenizer = tokenizer_of(model)
    if not adds_space(tokenizer):
        return lambda ids: decoded(tokenizer, ids)
    # A few tokens are enough context; a whole prompt would be decoded again for every row.
    before = list(after[-4:]) or encoded(tokenizer, "a")
    shown_before = decoded(tokenizer, before)

    def read(ids: Sequence[int]) -> str:
        whole = decoded(tokenizer, [*before, *ids])
        # A character whose bytes fall on both sides of the seam belongs to neither.
        return whole[len(shown_before) :] if whole.startswith(shown_before) else decoded(tokenizer, ids)

    return read


def token_strings(model: HookedModel, ids: Sequence[int]) -> tuple[str, ...]:
    """Each token as text, in order; bytes that do not form a whole character show as `�`."""
    read = reader_after(model)
    return tuple(read([int(one)]) for one in ids)


def single_token(model: HookedModel, word: str) -> int:
    """The id of `word` if it is exactly one token.

    Raises:
        SteerlensError: it is several; the message names the pieces.
    """
    ids = continuation_ids(model, word)
    if len(ids) != 1:
        pieces = ", ".join(repr(piece) for piece in token_strings(model, ids))
        raise SteerlensError(
            f"{word!r} is {len(ids)} tokens for this model ({pieces or 'nothing'}); "
            "give a text that is one token (a leading space often matters)"
        )
    return ids[0]


def checked_ids(model: HookedModel, ids: Sequence[int], *, any_length: bool = False) -> list[int]:
    """The ids, if the model has an embedding for each and, unless `any_length`, enough context for all.

    Raises:
        SteerlensError: it does not, as after `add_special_tokens` without a resized embedding; or there are too many.
    """
    known = int(model.cfg.d_vocab)
    for one in ids:
        if not 0 <= one < known:
            named = model.tokenizer is not None and 0 <= one < len(model.tokenizer)
            name = f" ({decoded(model.tokenizer, [one])!r})" if named else ""
            raise SteerlensError(
                f"token {shown(one)}{name} is outside the model's embedding of {known} tokens; "
                "leave it out, or resize the embedding before loading (model.resize_token_embeddings)"
            )
    if len(ids) > model.cfg.n_ctx and not any_length:
        raise SteerlensError(f"the text has {len(ids)} tokens but the model reads {model.cfg.n_ctx}; shorten it")
    return list(ids)


def pad_left(
    rows: Sequence[Sequence[int]], *, pad: int, device: torch.device | str
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Token rows aligned at their ends, and their attention mask (1 real, 0 padding)."""
    width = max(map(len, rows))
    tokens = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def pad_id(model: HookedModel) -> int:
    """A token id inside the embedding to pad rows with; masked wherever it is used."""
    tokenizer = tokenizer_of(model)
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if candidate is not None and 0 <= candidate < model.cfg.d_vocab:
            return int(candidate)
    return 0


def encoded(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a text as it is: nothing added before or after."""
    return list(tokenizer(text("a prompt", prompt), add_special_tokens=False)["input_ids"])


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens at the beginning of a sequence, special ones written out."""
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def tokenizer_of(model: HookedModel) -> Any:
    """The model's tokenizer.

    Raises:
        SteerlensError: it has none.
    """
    if model.tokenizer is None:
        raise SteerlensError("this model has no tokenizer; load it with one, or call model.set_tokenizer(...)")
    return model.tokenizer
