"""A HookedTransformer in pieces, each made of the same piece of a Hugging Face model when it is needed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.errors import SteerlensError
from steerlens.models.conversion import converted, what_is_processed
from steerlens.models.pieces import Piece, around, find_blocks, make_float32, make_meta, put_back_after
from steerlens.models.strides import laid_out

# What stands behind the blocks, by its name in a HookedTransformer.
_END = ("ln_final", "unembed")


def hooked_pieces(model: Any, hf_model: Any, *, processing: bool) -> list[Piece]:
    """The pieces of a HookedTransformer that has no weights yet, made of those of `hf_model`, which is emptied by it.

    Raises:
        SteerlensError: no list of blocks; when a piece is filled, weights that do not fit.
    """
    source = _Source(model, hf_model, processing)
    start = [child for name, child in model.named_children() if name not in (*_END, "blocks") and _has_weights(child)]
    end = [getattr(model, name) for name in _END if _has_weights(getattr(model, name, None))]
    outside = around(hf_model, source.blocks)
    head, embedding = hf_model.get_output_embeddings(), hf_model.get_input_embeddings()
    pieces = [
        source.piece(start, [one for one in outside if one is not head], done=[embedding]),
        source.piece(end, [one for one in outside if one is not embedding], done=[head]),
    ]
    for block, hf_block in zip(model.blocks, source.blocks, strict=True):
        done = [hf_model] if block is model.blocks[-1] else [hf_block]
        pieces.append(source.piece([block], [hf_block], done=done))
    return pieces


class _Source:
    """The Hugging Face model, one piece of which can be converted at a time."""

    def __init__(self, model: Any, hf_model: Any, processing: bool) -> None:
        self._model, self._hf_model, self._processing = model, hf_model, processing
        self._holder, self._name = find_blocks(hf_model, model.cfg.n_layers)
        self.blocks: Any = self._holder._modules[self._name]

    def piece(self, roots: Sequence[Any], origins: Sequence[Any], *, done: Sequence[Any]) -> Piece:
        """The piece of `roots`, made of the Hugging Face modules `origins`, of which some are done with then."""
        names = {id(module): f"{name}." for name, module in self._model.named_children()}
        paths = {names.get(id(root), "blocks.0."): root for root in roots}

        def fill() -> None:
            self._install(paths, self._weights(paths, origins))

        def keep(dtype: torch.dtype) -> None:
            state = self._weights(paths, origins)
            state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
            if not self._processing:
                state |= self._as_they_are(origins, dtype)
            self._install(paths, state)
            make_meta(module for root in done for module in root.modules())

        return Piece(tuple(roots), fill, keep)

    def _weights(self, paths: Mapping[str, Any], origins: Sequence[Any]) -> dict[str, Tensor]:
        """In float32, by name."""
        for more in (origins, around(self._hf_model, self.blocks)):  # a head may be made of the embedding
            state = self._processed(self._converted(more), paths)
            if not any(
                state[path + name].is_meta for path, root in paths.items() for name, _ in root.named_parameters()
            ):
                return state
        raise SteerlensError("it cannot be converted piece by piece")

    def _processed(self, state: dict[str, Tensor], paths: Mapping[str, Any]) -> dict[str, Tensor]:
        # The last layer norm is folded into the unembedding, and has no weights of its own then.
        here = (*paths, "ln_final.") if "unembed." in paths else tuple(paths)
        state = {name: value if name.startswith(here) else value.to("meta") for name, value in state.items()}
        for path, root in paths.items():
            for name, default in root.named_parameters():
                if path + name not in state and "W_" in name:
                    raise SteerlensError(f"it cannot be converted (nothing for {path}{name})")
                state.setdefault(path + name, default.detach())
        if not self._processing:
            return state
        from transformer_lens.weight_processing import ProcessWeights

        cfg = self._cfg("blocks.0." in paths)
        options = what_is_processed(cfg, processing=True)
        options["fold_ln"] = cfg.normalization_type in ("LN", "LNPre", "RMS", "RMSPre")
        options["center_unembed"] = "unembed." in paths
        # Each kind of processing copies all that it is given; biases that are zero add nothing.
        value_biases = [value for name, value in state.items() if name.endswith("b_V") and not value.is_meta]
        options["fold_value_biases"] = options["center_writing_weights"] or any(value.any() for value in value_biases)
        found: dict[str, Tensor] = ProcessWeights.process_weights(state, cfg, **options)
        return found

    def _as_they_are(self, origins: Sequence[Any], dtype: torch.dtype) -> dict[str, Tensor]:
        """Those weights that the conversion only looks at in another order, in the memory where they are."""
        own = {
            weight.untyped_storage().data_ptr()
            for root in origins
            for weight in root.parameters()
            if not weight.is_meta
        }
        return {
            name: value
            for name, value in self._converted(origins, as_they_are=True).items()
            if not value.is_meta and value.dtype == dtype and value.untyped_storage().data_ptr() in own
        }

    def _converted(self, origins: Sequence[Any], *, as_they_are: bool = False) -> dict[str, Tensor]:
        with self._alone(origins, as_they_are=as_they_are) as in_block:
            state = converted(self._hf_model, self._cfg(in_block))
        return {name: value.detach() for name, value in state.items()}

    @contextmanager
    def _alone(self, origins: Sequence[Any], *, as_they_are: bool) -> Iterator[bool]:
        """The Hugging Face model with numbers in these modules only, in float32, and with one block or none."""
        kept = {id(module): module for root in origins for module in root.modules()}
        blocks = [root for root in origins if any(root is block for block in self.blocks)]
        self._holder._modules[self._name] = nn.ModuleList(blocks)
        try:
            everything = list(self._hf_model.modules())
            with put_back_after(everything):
                make_meta(module for module in everything if id(module) not in kept)
                if not as_they_are:
                    make_float32(kept.values())
                yield bool(blocks)
        finally:
            self._holder._modules[self._name] = self.blocks

    def _cfg(self, in_block: bool) -> Any:
        """TransformerLens' configuration of a model with one block, or none."""
        cfg = copy.copy(self._model.cfg)
        cfg.n_layers = int(in_block)
        return cfg

    def _install(self, paths: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        gated = bool(getattr(self._model.cfg, "gated_mlp", False))
        for path, root in paths.items():
            for name, before in [*root.named_parameters(), *root.named_buffers()]:
                if (value := state.get(path + name)) is None:
                    continue
                if value.shape != before.shape:
                    raise SteerlensError(f"{path}{name} is {list(value.shape)} where {list(before.shape)} is needed")
                inner, _, last = name.rpartition(".")
                module = root.get_submodule(inner)
                if isinstance(before, nn.Parameter):
                    value = nn.Parameter(laid_out(path + name, value, gated=gated), before.requires_grad)
                    module._parameters[last] = value
                else:
                    module._buffers[last] = value.to(before.dtype)


def _has_weights(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())
