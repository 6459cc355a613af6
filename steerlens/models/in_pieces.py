"""`in_pieces`: a large original as a TransformerLens model, converted and proved one block at a time in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from steerlens.models.bridge_pieces import bridge_pieces
from steerlens.models.bridging import bridged
from steerlens.models.context import check_context, set_context
from steerlens.models.conversion import configuration, empty_hooked_transformer
from steerlens.models.ends import keep_end_ids
from steerlens.models.hooked_pieces import hooked_pieces
from steerlens.models.no_processes import MissingPackage
from steerlens.models.originals import Original, Way
from steerlens.models.pieces import Piece, buffers_in_float32, cast_in_place, plain_pieces, ready_when_called
from steerlens.models.proof import compare, keep_proof, reference


def in_pieces(
    original: Original,
    way: Way,
    tokenizer: Any,
    *,
    n_ctx: int | None,
    prove: bool,
    dtype: Callable[[Any], torch.dtype],
) -> Any | None:
    """The model with its weights in `dtype`, or None where it has to be converted as a whole to know what is wrong.

    TransformerLens knows models as wholes. That a block can be shown to it as a model of one layer holds for those
    whose blocks are alike; what does not hold for some architecture, the proof or an exception shows.

    Args:
        n_ctx, prove: see `load_model`.
        dtype: gives what the weights of a model are to end in.

    Raises:
        SteerlensError: more positions asked for than the model has.
    """
    hf_model = original.take(None).to("cpu").eval().requires_grad_(False)
    check_context(hf_model.config, n_ctx)
    try:
        expected = None
        if prove:
            with ready_when_called(plain_pieces(hf_model, _layers(hf_model)), hf_model):
                expected = reference(hf_model, tokenizer, in_float32=True)
        model, pieces = _empty(way, hf_model, tokenizer, original.name)
        set_context(model, hf_model.config, n_ctx)
        del hf_model
        roots = {model, getattr(model, "original_model", model)}  # which a bridge may hold where PyTorch does not look
        if expected is not None:
            with ready_when_called(pieces, *roots):
                proof = compare(model, expected, processed=way[1], steps=1)
            if not proof.holds:
                return None
            keep_proof(model, proof)
        final = dtype(model)
        while pieces:
            pieces.pop(0).keep(final)
        for root in roots:
            cast_in_place([root], final)  # what belongs to no piece
            buffers_in_float32(root)  # as they are made: who casts the model casts those that may be cast
    except (MissingPackage, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # the whole way tells the reason
        return None
    return model


def _empty(way: Way, hf_model: Any, tokenizer: Any, name: str) -> tuple[Any, list[Piece]]:
    """A model that waits for its weights, and the pieces that they come in."""
    use_bridge, processing = way
    if use_bridge:
        options = {"device": "cpu", "dtype": torch.float32}
        model = bridged(hf_model, tokenizer, name=name, processing=processing, weights_later=True, **options)
        return model, bridge_pieces(model, processing=processing)
    cfg = configuration(hf_model, processing=processing)
    model = empty_hooked_transformer(hf_model, cfg, tokenizer, name=name)
    keep_end_ids(model, hf_model)
    return model, hooked_pieces(model, hf_model, processing=processing)


def _layers(hf_model: Any) -> int:
    return int(hf_model.config.get_text_config().num_hidden_layers)
