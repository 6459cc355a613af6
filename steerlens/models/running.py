"""Running a model: the state of a pass, key-value caches, live hooks. HookedTransformer and bridge differ only here.

A *row* is one sequence of a batch. Batches are padded on the left or right and come with an attention mask
[batch pos] of ones (real) and zeros (padding); a row's position 0 is its first real token.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.models.protocol import HookedModel, is_bridge

Cache = Any
"""A key-value cache: TransformerLensKeyValueCache (HookedTransformer) or a Hugging Face Cache (bridge)."""


def resid_pre_hook(layer: int) -> str:
    """Name of the hook point at the input of block `layer`."""
    return f"blocks.{layer}.hook_resid_pre"


@dataclass(frozen=True)
class ForwardState:
    """The state of the forward pass now running.

    Attributes:
        offset: positions already in the key-value cache (0 without one, and at prefill).
        attention_mask: [batch offset+pos] as the model was given it, or None.
        tokens: [batch pos], or None where the model was given something else.
    """

    offset: int = 0
    attention_mask: Tensor | None = None
    tokens: Tensor | None = None


class ForwardStates:
    """The state of the forward pass that is inside a layer's block, by layer (see `forward_states`)."""

    def __init__(self, model: HookedModel) -> None:
        self._model = model
        self._states: dict[int, ForwardState] = {}
        self._watching = True

    def __call__(self, layer: int) -> ForwardState:
        return self._states.get(-1 if is_bridge(self._model) else layer, ForwardState())

    def note(self, layer: int, state: ForwardState) -> None:
        """Called as a pass goes by; −1 for a bridge, whose layers all have one state."""
        if self._watching:
            self._states[layer] = state

    @property
    def watching(self) -> bool:
        """Whether passes are to be noted."""
        return self._watching

    @contextmanager
    def apart(self) -> Iterator[None]:
        """A block in which the model may be run inside a pass that is under way, which then goes on as if it had not.

        A bridge's blocks remember where a pass is to stop, and its hook points the shape of what passes.
        """
        blocks: list[Any] = list(self._model.blocks) if is_bridge(self._model) else []  # type: ignore[attr-defined]
        points = self._model.hook_dict.values() if blocks else []
        conversions = [one for point in points if (one := getattr(point, "hook_conversion", None)) is not None]
        shapes = [(one, dict(vars(one))) for one in conversions]
        stops = [getattr(block, "_stop_at_layer_idx", None) for block in blocks]
        self._watching = False
        try:
            for block in blocks:
                block._stop_at_layer_idx = None
            yield
        finally:
            self._watching = True
            for block, stop in zip(blocks, stops, strict=True):
                block._stop_at_layer_idx = stop
            for conversion, before in shapes:
                vars(conversion).update(before)


@contextmanager
def forward_states(model: HookedModel, layers: Sequence[int]) -> Iterator[ForwardStates]:
    """A function from layer to the state of the forward pass that is inside that layer's block.

    A hook function sees only a tensor; whether it is a prompt, a later chunk or one generated token is known to the
    block (HookedTransformer) or to the wrapped Hugging Face model (bridge). Both are asked through module pre-hooks,
    so that it holds inside `generate`, with or without a cache. They are removed on any exit.
    """
    states = ForwardStates(model)
    with ExitStack() as stack:
        if is_bridge(model):

            def before_forward(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
                past = kwargs.get("past_key_values")
                offset = int(past.get_seq_length()) if past is not None else 0
                mask = kwargs.get("attention_mask")
                tokens = args[0] if args else kwargs.get("input_ids")
                mask = mask if mask is not None and mask.ndim == 2 else None
                states.note(-1, ForwardState(offset, mask, tokens))

            handle = model.original_model.register_forward_pre_hook(before_forward, with_kwargs=True)  # type: ignore[attr-defined]
            stack.callback(handle.remove)
            yield states
        else:
            embedded: list[Tensor] = []

            def before_embedding(module: Any, args: Any) -> None:
                if states.watching:
                    embedded[:] = args[:1]

            embed = model.embed  # type: ignore[attr-defined]
            stack.callback(embed.register_forward_pre_hook(before_embedding).remove)
            for layer in layers:

                def before_block(module: Any, args: Any, kwargs: dict[str, Any], layer: int = layer) -> None:
                    entry = kwargs.get("past_kv_cache_entry")
                    offset = int(entry.past_keys.shape[1]) if entry is not None else 0
                    # A pass that starts from a residual stream embeds nothing: other tokens are not its own.
                    same = embedded and embedded[0].shape == args[0].shape[:2]
                    tokens = embedded[0] if same else None
                    states.note(layer, ForwardState(offset, kwargs.get("attention_mask"), tokens))

                block = model.blocks[layer]  # type: ignore[attr-defined]
                stack.callback(block.register_forward_pre_hook(before_block, with_kwargs=True).remove)
            yield states


def live_hooks(point: Any) -> list[Any]:
    """The handles of the forward hooks on a hook point that someone put there (steerlens or the user).

    A bridge of TransformerLens 4 has permanent hooks of its own, which pass tensors on to other hook points.
    """

    def is_plumbing(handle: Any) -> bool:
        module = getattr(getattr(handle, "user_hook", None), "__module__", None) or ""
        return handle.is_permanent and module.startswith("transformer_lens.model_bridge")

    return [handle for handle in point.fwd_hooks if not is_plumbing(handle)]


@contextmanager
def without_live_hooks(model: HookedModel) -> Iterator[None]:
    """The model with every TransformerLens hook (the user's and steerlens' own) switched off, and back on after.

    Hooks keep their order and their handles stay valid.
    """
    points = {id(point): point for point in model.hook_dict.values()}.values()  # a bridge has several names for one
    hooked = [(point._forward_hooks, OrderedDict(point._forward_hooks), live_hooks(point)) for point in points]
    try:
        for live, _, handles in hooked:  # the very dict that handles refer to: it must be refilled, not replaced
            for handle in handles:
                live.pop(handle.hook.id, None)
        yield
    finally:
        for live, before, handles in hooked:
            if handles:
                live.clear()
                live.update(before)


@contextmanager
def kept_values(
    model: HookedModel, names: Sequence[str], *, part: Callable[[Tensor], Tensor] | None = None
) -> Iterator[dict[str, Tensor]]:
    """What passes the hook points of these names while the block lasts, the last value of each (or `part` of it).

    In place of `run_with_cache`, whose hooks stay on the model if a Ctrl-C comes between two of its lines. Hooks that
    are there already act before a value is kept.
    """
    kept: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        def keep(value: Tensor, hook: Any) -> None:
            kept[name] = value if part is None else part(value)

        return keep

    points = {name: model.hook_dict[name] for name in names if name in model.hook_dict}
    before = [(point, list(point.fwd_hooks), list(point._forward_hooks)) for point in points.values()]
    try:
        for name, point in points.items():
            point.add_hook(keeper(name))
        yield kept
    finally:
        # By what was there before, not by handles: a handle may never have come back.
        for point, handles, keys in before:
            for key in [key for key in point._forward_hooks if key not in keys]:
                del point._forward_hooks[key]
            point.fwd_hooks[:] = [one for one in point.fwd_hooks if any(one is handle for handle in handles)]


def final_logits(model: HookedModel, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab"]:
    """Logits of residual-stream vectors at the end of the last block of a HookedTransformer."""
    flat = resid.reshape(1, -1, resid.shape[-1])
    if model.cfg.normalization_type is not None:
        flat = model.ln_final(flat)  # type: ignore[attr-defined]
    logits = model.unembed(flat)  # type: ignore[attr-defined]
    cap = getattr(model.cfg, "output_logits_soft_cap", -1.0)
    if cap is not None and cap > 0:
        logits = cap * torch.tanh(logits / cap)
    return logits.reshape(*resid.shape[:-1], -1)


def prefill(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"],
    *,
    use_cache: bool = True,
) -> tuple[Float[Tensor, "batch d_vocab"], Cache | None]:
    """Next-token logits of left-padded prompts, and the key-value cache that a decode goes on from.

    Only the last position reaches the unembedding.
    """
    if is_bridge(model):
        kwargs: dict[str, Any] = {"attention_mask": attention_mask, "logits_to_keep": 1, "use_cache": use_cache}
        if not use_cache:
            return model(tokens, **kwargs)[:, -1], None
        logits, cache = model(tokens, return_type="logits_and_cache", **kwargs)
        return logits[:, -1], cache
    cache = _new_hooked_cache(model, tokens.shape[0]) if use_cache else None
    resid = model(
        tokens, attention_mask=attention_mask, past_kv_cache=cache, stop_at_layer=model.cfg.n_layers, return_type=None
    )
    return final_logits(model, resid[:, -1]), cache


def decode_logits(
    model: HookedModel,
    tokens: Int[Tensor, "batch 1"],
    attention_mask: Int[Tensor, "batch total"],
    cache: Cache,
) -> Float[Tensor, "batch d_vocab"]:
    """Next-token logits after one more token per row; the cache grows in place. The mask covers past and new."""
    if is_bridge(model):
        kwargs: dict[str, Any] = {"attention_mask": attention_mask, "past_key_values": cache, "use_cache": True}
        # The bridge would look into the mask for rows that need positions other than the default, and wait for the
        # device at every token; where it says that the model takes positions from outside, it is spared the look.
        if getattr(model, "_accepts_derived_position_ids", lambda: False)():
            kwargs["position_ids"] = attention_mask.sum(-1, keepdim=True) - 1
        logits, _ = model(tokens, return_type="logits_and_cache", **kwargs)
        return logits[:, -1]
    # HookedTransformer joins the new part of the mask to the one its cache remembers.
    return model(tokens, attention_mask=attention_mask[:, -tokens.shape[1] :], past_kv_cache=cache)[:, -1]


def expand_cache(cache: Cache, repeats: int) -> Cache:
    """The cache with every row repeated `repeats` times, copies of a row next to each other."""
    if hasattr(cache, "batch_repeat_interleave"):
        cache.batch_repeat_interleave(repeats)
        return cache
    return _map_hooked_cache(cache, lambda x: x.repeat_interleave(repeats, dim=0))


def keep_cache_rows(cache: Cache, rows: Int[Tensor, " kept"]) -> Cache:
    """The cache of the given rows only, in the given order."""
    if hasattr(cache, "batch_select_indices"):
        cache.batch_select_indices(rows)
        return cache
    return _map_hooked_cache(cache, lambda x: x.index_select(0, rows.to(x.device)))


def _new_hooked_cache(model: HookedModel, batch: int) -> Cache:
    from transformer_lens import TransformerLensKeyValueCache

    return TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, batch)


def _map_hooked_cache(cache: Cache, change: Callable[[Tensor], Tensor]) -> Cache:
    for entry in cache.entries:
        entry.past_keys, entry.past_values = change(entry.past_keys), change(entry.past_values)
    cache.previous_attention_mask = change(cache.previous_attention_mask)
    return cache
