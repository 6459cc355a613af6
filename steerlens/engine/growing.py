"""The three ways to run a batch: block by block, in the model's own loop while hooks add rows, or all rows at once.

In a growing batch the clean rows are carried once for all conditions; at the input of layer l the rows of conditions
that begin there are appended (clean + injection), so a condition costs only the blocks after its injection. All layers
× c coefficients take about half the block-rows of a plain batch, in one pass.

A HookedTransformer's blocks are called one by one. A bridge owns its loop over the blocks, but carries on with what its
hooks return: a hook may return more rows than it was given if the model was called with one row, since everything else
in the forward pass (positions, masks) then has a batch axis of 1 and broadcasts to any number of rows. Whether that
holds for a model is tested on a few tokens before it is relied on.

The caller's own hooks expect the model's own calls, with rows that keep their place: if there are any, all rows run
from the first block to the last, as they do on models that suit neither of the other ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.engine.growths import Bank, Growth
from steerlens.interruptions import breathe
from steerlens.models import HookedModel, Site, changing_at, is_bridge, put_on, resid_pre_hook, stamp
from steerlens.steering.changing import Round
from steerlens.steering.conditions import Injection
from steerlens.steering.vectors import SteeringVector

# What the trial found, per model; the key says under which settings.
_TRIED: WeakKeyDictionary[Any, dict[tuple[object, ...], bool]] = WeakKeyDictionary()


def walk_blocks(
    model: Any,
    tokens: Int[Tensor, "passages pos"],
    growths: Sequence[Growth],
    bank: Bank,
    *,
    clean: Float[Tensor, "passages pos d_model"] | None = None,
    start: int = 0,
    hand_on: int | None = None,
    wanted_from: int = 0,
) -> tuple[Float[Tensor, "rows kept d_model"], Float[Tensor, "passages pos d_model"] | None]:
    """The residual stream after the last block of a HookedTransformer, and the clean input of block `hand_on`.

    Args:
        clean: the clean rows at the input of block `start`; by default the embedded tokens, at 0.
        wanted_from: the first column of the result; in the last block, earlier ones serve as keys and values only.
    """
    if clean is None:
        # The mask says that all positions count; without one, it would be guessed if the tokenizer pads on the left.
        clean = model.input_to_embed(tokens, attention_mask=torch.ones_like(tokens))[0]
    assert clean is not None
    resid: Tensor = clean
    handed_on = None
    at_layer = {growth.layer: growth for growth in growths}
    for layer in range(start, model.cfg.n_layers):
        breathe()
        if layer == hand_on:
            handed_on = resid[: len(tokens)].clone()  # the clean rows come first as long as they are present
        growth = at_layer.get(layer)
        if growth is not None:
            resid = growth.of(resid, bank)
        if growth is not None and growth.inside:
            with ExitStack() as stack:
                _change_inside(model, stack, growth, bank)
                resid = model.blocks[layer](resid)
            resid = resid if layer < model.cfg.n_layers - 1 else resid[:, wanted_from:]
        elif layer < model.cfg.n_layers - 1 or wanted_from == 0:
            resid = model.blocks[layer](resid)
        elif _keys_stand_alone(model.cfg):
            resid = _tail(model.blocks[layer], resid, wanted_from)
        else:
            resid = model.blocks[layer](resid)[:, wanted_from:]
    return resid, handed_on


def grow_by_hooks(
    model: Any, tokens: Int[Tensor, "passages pos"], growths: Sequence[Growth], bank: Bank, **options: Any
) -> Float[Tensor, "rows kept d_vocab"]:
    """The logits of a growing batch on a bridge: the model is called with one row, from which hooks make the others."""
    with ExitStack() as stack:
        if len(tokens) > 1:
            embedded = model(tokens, stop_at_layer=0)
            _on(model, stack, 0, lambda resid: embedded)
        for growth in growths:
            _on(model, stack, growth.layer, lambda resid, growth=growth: growth.of(resid, bank))
            _change_inside(model, stack, growth, bank)
        return model(tokens[:1], use_cache=False, **options)


def run_all_rows(
    model: Any, tokens: Int[Tensor, "rows pos"], growths: Sequence[Growth], bank: Bank, **options: Any
) -> Float[Tensor, "rows kept d_vocab"]:
    """The logits of rows that are all present from the start; hooks on the model act on them as in any other call."""
    if is_bridge(model):
        options["use_cache"] = False
    with ExitStack() as stack:
        for growth in growths:
            _on(model, stack, growth.layer, lambda resid, growth=growth: growth.of(resid, bank))
            _change_inside(model, stack, growth, bank)
        return model(tokens, **options)


def can_walk_blocks(model: HookedModel) -> bool:
    """Whether the blocks of `model` may be called one by one with our own rows."""
    if is_bridge(model):
        return False
    cfg = model.cfg
    return (
        cfg.attention_dir == "causal"
        and cfg.positional_embedding_type in ("standard", "rotary", "alibi")
        and not cfg.use_hook_tokens
        and "forward" not in vars(model)
    )


@torch.no_grad()
def can_grow_by_hooks(model: HookedModel) -> bool:
    """Whether a bridge's forward pass carries on with rows that hooks have added: tested on two rows of two tokens."""
    if not is_bridge(model):
        return False
    any_model: Any = model
    config = getattr(any_model.original_model, "config", None)
    key = (getattr(model, "compatibility_mode", None), getattr(config, "_attn_implementation", None))
    tried = _TRIED.setdefault(any_model, {})
    if key not in tried:
        tried[key] = _grows(any_model)
    return tried[key]


def _grows(model: Any) -> bool:
    layer, device = model.cfg.n_layers - 1, model.cfg.device
    values = torch.linspace(-3.0, 3.0, model.cfg.d_model)[None]
    bank = Bank([Injection(SteeringVector(values, layer, stamp(model)))])

    def growth(sources: list[int] | None) -> Growth:
        places = torch.tensor([[2, 3], [1, 1], [0, 0]])
        found = None if sources is None else torch.tensor(sources)
        return Growth(layer, found, {"resid_pre": [Round("add", places)]}, 2).to(device)

    tokens = torch.tensor([[1, 2], [3, 1]], device=device) % int(model.cfg.d_vocab)
    expected = run_all_rows(model, tokens.repeat(2, 1), [growth(None)], bank).float()
    try:
        found = grow_by_hooks(model, tokens, [growth([0, 1, 0, 1])], bank).float()
    except torch.OutOfMemoryError:  # says nothing about the model
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError):
        return False
    # Rows of different tokens differ by far more than rounding at any precision.
    tolerance = 1e-4 if model.cfg.dtype in (torch.float32, torch.float64) else 2e-2
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def has_live_hooks(model: HookedModel) -> bool:
    """Whether anything observes or changes the forward pass: TransformerLens or PyTorch hooks on any module."""
    modules: Any = model
    return any(
        not _is_of_the_bridge(function)
        for module in modules.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for function in hooks.values()
    )


def padding_is_harmless(model: HookedModel) -> bool:
    """Whether a row's results are the same in a wider batch: not if rotary frequencies follow the width."""
    if getattr(model.cfg, "use_dynamic_ntk_rope", False):
        return False
    config = getattr(getattr(model, "original_model", None), "config", None)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return not {"dynamic", "longrope"} & set(map(str, _values_within(rope)))


def _on(model: Any, stack: ExitStack, layer: int, change: Any) -> None:
    """Replace the input of a block by `change(input)` until the stack unwinds."""
    point = model.hook_dict[resid_pre_hook(layer)]
    # A plain PyTorch hook on the hook point: it runs after those already there, and TransformerLens does not list it.
    stack.callback(point.register_forward_hook(lambda module, args, resid: change(resid)).remove)


def _change_inside(model: Any, stack: ExitStack, growth: Growth, bank: Bank) -> None:
    """Apply a growth inside its block until the stack unwinds."""
    for site in growth.inside:

        def act(x: Tensor, site: Site = site) -> Tensor:
            return growth.at(site, x, bank)

        for name, function in changing_at(model, growth.layer, site, act):
            stack.callback(put_on(model, name, function))


def _keys_stand_alone(cfg: Any) -> bool:
    """Whether keys and values of a HookedTransformer's block may be computed apart from the rest of it."""
    return not (
        cfg.use_attn_in
        or cfg.use_split_qkv_input
        or cfg.clip_qkv is not None
        or str(cfg.original_architecture).lower().startswith("olmo")  # normalise keys elsewhere
        or cfg.load_in_4bit
        or cfg.positional_embedding_type == "alibi"
    )


@dataclass(frozen=True, eq=False)
class _EarlierKeys:
    """The keys and values of earlier positions, in the form that a HookedTransformer's attention expects."""

    past_keys: Float[Tensor, "rows earlier heads d_head"]
    past_values: Float[Tensor, "rows earlier heads d_head"]

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([self.past_keys, keys], dim=1), torch.cat([self.past_values, values], dim=1)


def _tail(block: Any, resid: Float[Tensor, "rows pos d_model"], first: int) -> Float[Tensor, "rows tail d_model"]:
    """The output of a block from position `first` on: earlier positions serve as keys and values only."""
    before = block.ln1(resid[:, :first].contiguous())  # some of TransformerLens' layers only take views
    _, keys, values = block.attn.calculate_qkv_matrices(before[:, :0], before, before)
    return block(resid[:, first:].contiguous(), past_kv_cache_entry=_EarlierKeys(keys, values))


def _values_within(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _values_within(value)
    else:
        yield tree


def _is_of_the_bridge(function: Any) -> bool:
    """Whether the bridge or the model it wraps put the hook there itself, to feed hook points or collect outputs."""
    own = ("transformer_lens.model_bridge", "transformers.utils.output_capturing")
    return str(getattr(function, "__module__", "")).startswith(own)
