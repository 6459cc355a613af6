"""How many positions a model was made for, and fewer if the user wants."""

from __future__ import annotations

from typing import Any

from steerlens.errors import SteerlensError
from steerlens.models.protocol import HookedModel


def own_context(config: Any) -> int | None:
    """How many positions a model was made for, or None if its configuration does not say."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def check_context(config: Any, n_ctx: int | None) -> None:
    """Raises SteerlensError if the model has fewer than `n_ctx` positions."""
    own = own_context(config)
    if n_ctx is not None and own is not None and n_ctx > own:
        raise SteerlensError(f"n_ctx={n_ctx} is more than the {own} positions of this model; give {own} or fewer")


def set_context(model: HookedModel, config: Any, n_ctx: int | None) -> None:
    """Nothing is returned: the model knows its own number of positions, or `n_ctx`.

    TransformerLens caps the context of some kinds of model (Mistral's 32,768 positions at 2,048), to save memory that
    it no longer takes.
    """
    model.cfg.n_ctx = n_ctx or own_context(config) or model.cfg.n_ctx
