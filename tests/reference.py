"""The reference that results are held against: plain PyTorch hooks on plain Hugging Face models, one prompt at a time.

No padding, no cache, no TransformerLens, nothing of steerlens: what these functions return is right by inspection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

ARCHITECTURES = ("gpt2", "llama", "opt", "gptj")
N_LAYERS, D_MODEL, N_CTX = 3, 32, 64
RANGES = ("all", "prompt", "generated", "from_last")  # placements of one row at many positions


def tiny_model(
    architecture: str, *, vocab: int, seed: int = 0, n_layers: int = N_LAYERS, n_ctx: int = N_CTX
) -> nn.Module:
    """A Hugging Face model of the architecture with random weights: small, but its predictions are far from flat."""
    import transformers as hf

    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    configs: dict[str, Any] = {
        "gpt2": lambda: hf.GPT2Config(
            vocab_size=vocab, n_positions=n_ctx, n_embd=D_MODEL, n_layer=n_layers, n_head=4, **special
        ),
        "llama": lambda: hf.LlamaConfig(
            vocab_size=vocab,
            hidden_size=D_MODEL,
            intermediate_size=64,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            num_key_value_heads=2,  # grouped queries
            max_position_embeddings=n_ctx,
            tie_word_embeddings=False,
            **special,
        ),
        "opt": lambda: hf.OPTConfig(
            vocab_size=vocab,
            hidden_size=D_MODEL,
            word_embed_proj_dim=D_MODEL,
            ffn_dim=64,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            max_position_embeddings=n_ctx,
            dropout=0.0,
            **special,
        ),
        "gptj": lambda: hf.GPTJConfig(
            vocab_size=vocab, n_positions=n_ctx, n_embd=D_MODEL, n_layer=n_layers, n_head=4, rotary_dim=4, **special
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.AutoModelForCausalLM.from_config(configs[architecture](), dtype=torch.float32)
        for name, weight in model.named_parameters():
            if weight.ndim == 1:  # gains around 1, biases around 0, neither exactly
                weight.data.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            elif "wpe" in name or "embed_positions" in name:
                weight.data.normal_(0.0, 0.3)
            elif weight.shape[0] == vocab:
                weight.data.normal_(0.0, 0.35)
            else:
                weight.data.normal_(0.0, 2.0 / D_MODEL**0.5)
    return model.eval().requires_grad_(False)


def blocks(hf_model: Any) -> Sequence[nn.Module]:
    """The transformer blocks of a Hugging Face model."""
    if hasattr(hf_model, "transformer"):
        return hf_model.transformer.h
    return hf_model.model.decoder.layers if hasattr(hf_model.model, "decoder") else hf_model.model.layers


@torch.no_grad()
def block_inputs(hf_model: Any, ids: Sequence[int]) -> list[Tensor]:
    """What goes into each block, [pos d_model], by layer."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"])[0].clone())

    with ExitStack() as stack:
        for block in blocks(hf_model):
            stack.callback(block.register_forward_pre_hook(keep, with_kwargs=True).remove)
        hf_model(torch.tensor([list(ids)]), use_cache=False)
    return seen


@torch.no_grad()
def log_probs(hf_model: Any, ids: Sequence[int], additions: Mapping[int, Tensor] | None = None) -> Tensor:
    """Next-token log-probabilities at every position, [pos vocab], with `additions[layer]` [≤pos d_model] added to the
    first positions of that block's input."""

    def adder(values: Tensor) -> Any:
        def add(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            hidden = (args[0] if args else kwargs["hidden_states"]).clone()
            hidden[:, : len(values)] += values
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return add

    with ExitStack() as stack:
        for layer, values in (additions or {}).items():
            handle = blocks(hf_model)[layer].register_forward_pre_hook(adder(values), with_kwargs=True)
            stack.callback(handle.remove)
        return hf_model(torch.tensor([list(ids)]), use_cache=False).logits[0].log_softmax(-1)


def _parts(block: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The attention of a block, the map that its heads' outputs go through, and what ends its MLP."""
    attention = block.attn if hasattr(block, "attn") else block.self_attn
    out = next(getattr(attention, name) for name in ("c_proj", "o_proj", "out_proj") if hasattr(attention, name))
    return attention, out, block.mlp if hasattr(block, "mlp") else block.fc2


def _on_input(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Any:
    def hook(module: nn.Module, args: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    return module.register_forward_hook(hook)


@torch.no_grad()
def changed_log_probs(
    hf_model: Any, ids: Sequence[int], changes: Sequence[tuple[int, str, Callable[[Tensor], Tensor]]]
) -> Tensor:
    """Next-token log-probabilities at every position, [pos vocab], with (layer, site, change) done one after the other.

    `change` takes and returns an activation [pos width].
    """
    with ExitStack() as stack:
        for layer, site, change in changes:
            block = blocks(hf_model)[layer]
            attention, out, mlp = _parts(block)

            def whole(x: Tensor, change: Callable[[Tensor], Tensor] = change) -> Tensor:
                return change(x.reshape(-1, x.shape[-1])).reshape(x.shape)

            if site == "resid_mid":  # there is no module to hook: what attention adds brings the change along
                entering: list[Tensor] = []

                def keep(x: Tensor, entering: list[Tensor] = entering) -> Tensor:
                    entering[:] = [x]
                    return x

                def middle(x: Tensor, entering: list[Tensor] = entering, whole: Any = whole) -> Tensor:
                    return whole(entering[0] + x) - entering[0]

                handles = [_on_input(block, keep), _on_output(attention, middle)]
            elif site in ("resid_pre", "z"):
                handles = [_on_input(block if site == "resid_pre" else out, whole)]
            else:
                handles = [_on_output({"attn_out": attention, "mlp_out": mlp, "resid_post": block}[site], whole)]
            for handle in handles:
                stack.callback(handle.remove)
        return hf_model(torch.tensor([list(ids)]), use_cache=False).logits[0].log_softmax(-1)


def operated(
    x: Tensor,
    v: Tensor,
    operation: str,
    *,
    heads: int = 1,
    value: float | None = None,
    mean: Tensor | None = None,
    reads: Tensor | None = None,
) -> Tensor:
    """What an operation makes of activations [pos width], head by head, written out from its formula."""
    if operation == "reft":
        return x + torch.outer(x @ reads + (value or 0.0), v)
    parts = []
    for head, (one, row) in enumerate(zip(x.chunk(heads, -1), v.chunk(heads, -1), strict=True)):
        if not row.any():
            parts.append(one)
            continue
        unit = row / row.norm()
        without = one - (one @ unit)[:, None] * unit
        if operation == "add":
            made = one + row
        elif operation == "add_keep_norm":
            made = (one + row) * (one.norm(dim=-1) / (one + row).norm(dim=-1))[:, None]
        elif operation == "ablate":
            made = without
        elif operation == "clamp":
            made = without + (row if value is None else value * unit)
        else:
            made = without + (mean.chunk(heads, -1)[head] @ unit) * unit + row
        parts.append(made)
    return torch.cat(parts, -1)


def greedy(hf_model: Any, ids: Sequence[int], n: int, additions: Any = None) -> list[int]:
    """The `n` most likely next tokens, one after the other, everything computed anew for each.

    `additions` is what `log_probs` takes, or a function from the length so far to that.
    """
    ids, start = list(ids), len(ids)
    for _ in range(n):
        now = additions(len(ids)) if callable(additions) else additions
        ids.append(int(log_probs(hf_model, ids, now)[-1].argmax()))
    return ids[start:]


def placed(values: Tensor, placement: str | int, length: int, *, first: int = 1, total: int | None = None) -> Tensor:
    """`values` [n d_model] as rows of zeros and values for a prompt of `length` tokens, from the words of the docs.

    `total` is the length with generated tokens, which "all", "generated" and "from_last" touch; `first` is the first
    position after BOS.
    """
    n, total = len(values), total or length
    rows = torch.zeros(total, values.shape[1])
    if placement in RANGES:
        first = {"generated": length, "from_last": length - 1}.get(placement, first)
        rows[first : length if placement == "prompt" else total] = values[0]
        return rows
    starts = {"front": 0, "mid": length // 2 - n // 2, "back": length - n, "last": length - 1}
    start = starts[placement] if isinstance(placement, str) else placement % length
    rows[start : start + n] = values
    return rows
