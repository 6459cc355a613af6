"""Which tokens end a text, by the model's own settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from steerlens.models.protocol import HookedModel

# What a HookedTransformer remembers of the generation settings of the Hugging Face model it was made from.
_KEPT = "_steerlens_end_ids"


def keep_end_ids(model: Any, hf_model: Any) -> None:
    """Record on a converted model which tokens end the original's text; a bridge has the original itself."""
    model.__dict__[_KEPT] = _of_settings(hf_model)


def end_ids(model: HookedModel) -> tuple[int, ...]:
    """The ids that end a completion: every one of the model's `generation_config.eos_token_id`, as in Hugging Face.

    Where the model has no such settings, the tokenizer's end of text. Ids outside the vocabulary are left out.
    """
    found = _of_settings(getattr(model, "original_model", None)) or model.__dict__.get(_KEPT, ())
    if not found:
        found = _numbers(getattr(model.tokenizer, "eos_token_id", None))
    return tuple(one for one in found if 0 <= one < model.cfg.d_vocab)


def _of_settings(hf_model: Any) -> tuple[int, ...]:
    settings = getattr(hf_model, "generation_config", None)
    return _numbers(getattr(settings, "eos_token_id", None))


def _numbers(ids: Any) -> tuple[int, ...]:
    if ids is None:
        return ()
    return tuple(dict.fromkeys(int(one) for one in (ids if isinstance(ids, Iterable) else [ids])))
