"""Bare Hugging Face models: where their blocks and sites are, and whether a vector was made for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from steerlens.arguments import shown
from steerlens.errors import SteerlensError
from steerlens.models.model_stamp import ModelStamp, sample_of, sketch_of, sketches_agree
from steerlens.models.running import ForwardState
from steerlens.models.sites import Site
from steerlens.models.weight_sketch import sketch_weights

# Where transformers keeps the blocks, whatever the architecture.
_BLOCKS = ("model.layers", "transformer.h", "model.decoder.layers", "gpt_neox.layers", "transformer.blocks")

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Inside:
    """Where the parts of a block are: its attention, the map behind the heads, and what gives out the MLP's part.

    `side_by_side`: attention and MLP read the same input, so there is no stream between them.
    """

    attention: str
    heads: str
    mlp: str = "mlp"
    side_by_side: bool = False


_LLAMA = _Inside("self_attn", "self_attn.o_proj")
# Architectures whose blocks add just what these modules give out; of others only input and output are known.
_INSIDE: dict[str, _Inside] = {
    "gpt2": _Inside("attn", "attn.c_proj"),
    "gptj": _Inside("attn", "attn.out_proj", side_by_side=True),
    "opt": _Inside("self_attn", "self_attn.out_proj", mlp="fc2"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA),
}


def bare_blocks(hf_model: Any) -> Sequence[nn.Module]:
    """The transformer blocks of a Hugging Face model.

    Raises:
        SteerlensError: not a Hugging Face language model, or one whose blocks are not where others have them.
    """
    if isinstance(hf_model, nn.Module) and hasattr(hf_model, "hook_dict"):
        raise SteerlensError(
            f"expected a bare Hugging Face model, got a {type(hf_model).__name__} of TransformerLens; "
            "steer it with steerlens.steer(model, …)"
        )
    if not isinstance(hf_model, nn.Module) or not hasattr(hf_model, "config"):
        raise SteerlensError(
            f"expected a Hugging Face model, got {shown(hf_model)}; load it with AutoModelForCausalLM.from_pretrained"
        )
    return list(_decoder_and_blocks(hf_model)[1])


def _decoder_and_blocks(hf_model: Any) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the blocks, whichever way the model is called, and the blocks."""
    for path in _BLOCKS:
        decoder = path.rpartition(".")[0]
        found = _at(hf_model, path)
        if isinstance(found, nn.ModuleList) and len(found):
            return _at(hf_model, decoder), found
    raise SteerlensError(
        f"a {type(hf_model).__name__} keeps its blocks at none of {', '.join(_BLOCKS)}; give the plain language model"
    )


def _at(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def bare_difference(stamp: ModelStamp, hf_model: Any) -> str | None:
    """Why vectors with a stamp do not belong on a bare model, in words, or None if they do.

    Compared are sizes, and the weights of the model that the stamped one was made from; where these are not known (a
    live TransformerLens model, packed weights), entries of the token embedding.
    """
    embedding: Tensor = hf_model.get_input_embeddings().weight
    sizes = {"n_layers": len(bare_blocks(hf_model)), "d_model": embedding.shape[1], "d_vocab": embedding.shape[0]}
    for field, theirs in sizes.items():
        if (mine := getattr(stamp, field)) != theirs:
            return f"{field} is {theirs} where the vector's model has {mine}"
    if stamp.origin is not None:
        differ = stamp.origin.differs(sketch_weights(hf_model.named_parameters()))
        if differ is not None:
            return "the weights differ" if differ else None
    sample = sample_of(embedding)
    if stamp.centred:
        sample = sample - sample.mean(-1, keepdim=True)
    return None if sketches_agree(stamp.sketch, sketch_of(sample)) else "the weights differ"


def require_bare_site(hf_model: Any, site: Site) -> None:
    """Raise SteerlensError unless it is known where in its blocks the model has a site."""
    if site in ("resid_pre", "resid_post"):
        return
    kind = str(getattr(hf_model.config, "model_type", ""))
    inside = _INSIDE.get(kind)
    if inside is None:
        raise SteerlensError(
            f"where the blocks of {kind or type(hf_model).__name__!r} have {site!r} is not known; use resid_pre or "
            f"resid_post, or a model of {', '.join(_INSIDE)}"
        )
    if site == "resid_mid" and inside.side_by_side:
        raise SteerlensError(
            "this model has no site 'resid_mid' (its attention and MLP run side by side); use one of "
            "resid_pre, z, attn_out, mlp_out, resid_post"
        )


def moves_values(hf_model: Any, layer: int) -> bool:
    """Whether weight processing takes something out of the head outputs: the biases that reach the values.

    Attention weights add up to one, so TransformerLens moves a bias of the values behind the heads.
    """
    block = bare_blocks(hf_model)[layer]
    inside = _INSIDE[str(hf_model.config.model_type)]
    attention = _at(block, inside.attention)
    values = [getattr(attention, name, None) for name in ("v_proj", "c_attn")]
    norms = [getattr(block, name, None) for name in ("ln_1", "input_layernorm", "self_attn_layer_norm")]
    return any(getattr(module, "bias", None) is not None for module in (*values, *norms) if module is not None)


def change_bare(hf_model: Any, layer: int, site: Site, change: Change) -> list[Callable[[], None]]:
    """What takes off the hooks that let `change` act at a site of a bare model.

    `change` is given [batch pos width] (at OPT's `mlp_out` tokens in a row, [batch·pos width]) and returns the same
    shape, or the very tensor if nothing is to change.
    """
    block = bare_blocks(hf_model)[layer]
    if site == "resid_pre":
        return [_on_input(block, change)]
    if site == "resid_post":
        return [_on_output(block, change)]
    inside = _INSIDE[str(hf_model.config.model_type)]
    if site == "z":
        return [_on_input(_at(block, inside.heads), change)]
    if site == "mlp_out":
        return [_on_output(_at(block, inside.mlp), change)]
    attention = _at(block, inside.attention)
    if site == "attn_out":
        return [_on_output(attention, change)]
    entering: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        entering[:] = [x]
        return x

    def through_attention(out: Tensor) -> Tensor:  # no module has the stream between: what attention adds brings it
        middle = entering.pop() + out
        changed = change(middle)
        return out if changed is middle else out + (changed - middle)

    return [_on_input(block, keep), _on_output(attention, through_attention)]


def _on_input(module: nn.Module, change: Change) -> Callable[[], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True).remove


def _on_output(module: nn.Module, change: Change) -> Callable[[], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    return module.register_forward_hook(hook).remove


def watch_passes(hf_model: Any, begin: Callable[[ForwardState], None]) -> Callable[[], None]:
    """What ends the watch: until then `begin` is told the state of every forward pass before its blocks run."""
    decoder = _decoder_and_blocks(hf_model)[0]
    signature = inspect.signature(decoder.forward)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given: Mapping[str, Any] = signature.bind_partial(*args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        past, mask = given.get("past_key_values"), given.get("attention_mask")
        if mask is not None and getattr(mask, "ndim", 0) != 2:
            raise SteerlensError(
                "an attached model needs an attention_mask of [batch pos], to tell padding from text, and was given "
                f"{shown(mask)}; leave it as the tokenizer makes it, and use a dynamic cache"
            )
        begin(ForwardState(0 if past is None else int(past.get_seq_length()), mask, given.get("input_ids")))

    return decoder.register_forward_pre_hook(before, with_kwargs=True).remove
