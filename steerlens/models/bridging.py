"""A Hugging Face model as a TransformerBridge, and the tokenizer as TransformerLens takes it."""

from __future__ import annotations

import copy
from typing import Any

from steerlens.errors import SteerlensError
from steerlens.models.no_processes import no_processes


def bridged(
    hf_model: Any, tokenizer: Any, *, name: str, processing: bool, weights_later: bool = False, **options: Any
) -> Any:
    """A bridge around `hf_model`, which it changes in place.

    Args:
        processing: fold and centre the weights, as HookedTransformer does.
        weights_later: all but the weights, which are processed piece by piece afterwards (see `bridge_pieces`).
        options: for TransformerLens' `boot_transformers`.

    Raises:
        SteerlensError: a package is missing that TransformerLens would install behind the user's back.
    """
    from transformer_lens.model_bridge import TransformerBridge

    # TransformerLens chooses by this word, which files and configurations may lack.
    hf_model.config.architectures = [type(hf_model).__name__]
    with no_processes(type(hf_model).__name__):
        model = TransformerBridge.boot_transformers(name, hf_model=hf_model, tokenizer=tokenizer, **options)
    if processing:
        model.enable_compatibility_mode(disable_warnings=True, no_processing=weights_later)
        model._weights_processed = True
    model.cfg.model_name = name
    return model


def own_tokenizer(tokenizer: Any, name: str) -> Any:
    """A copy of the tokenizer that TransformerLens takes as it is."""
    check_tokenizer(tokenizer)
    tokenizer = copy.deepcopy(tokenizer)  # TransformerLens fills in its special tokens
    # Without this word TransformerLens reads the tokenizer anew from its name: from the hub if it was made in memory,
    # without what the caller changed if it was not. It puts BOS in front itself where the tokenizer does not.
    tokenizer.init_kwargs |= {"name_or_path": tokenizer.init_kwargs.get("name_or_path", name), "add_bos_token": True}
    return tokenizer


def check_tokenizer(tokenizer: Any) -> None:
    """Raises SteerlensError for what is no Hugging Face tokenizer, or an empty one."""
    if not hasattr(tokenizer, "init_kwargs"):
        raise SteerlensError(
            f"tokenizer must be a Hugging Face tokenizer, got {type(tokenizer).__name__}; "
            "make one with AutoTokenizer.from_pretrained(...)"
        )
    if len(tokenizer) < 64 and not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise SteerlensError(
            f"this {type(tokenizer).__name__} is empty (it knows {len(tokenizer)} special tokens and no text), "
            "as one is whose files are missing; give tokenizer="
        )
