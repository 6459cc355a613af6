"""GPT-2 in a form that trains quickly on a CPU core, and the way to and from the Hugging Face layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The size of a GPT-2: heads are 64 wide."""

    n_layer: int = 8
    n_embd: int = 256
    n_ctx: int = 256
    vocab_size: int = 8192

    @property
    def n_head(self) -> int:
        return self.n_embd // 64


# The default trains on one CPU core in two hours; the others want an accelerator. In fp16 all but the 29 M one stay
# below 40 MB, the most that the package may hold.
PRESETS = {
    "8m": Shape(n_layer=8, n_embd=256),
    "17m": Shape(n_layer=8, n_embd=384),
    "19m": Shape(n_layer=9, n_embd=384),
    "29m": Shape(n_layer=8, n_embd=512),
    "tiny": Shape(n_layer=2, n_embd=64, n_ctx=64, vocab_size=512),  # for tests
}


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, [batch head pos d_head] each; half of the square above the diagonal is never computed.

    Written out on the CPU, where torch.compile makes this twice as quick as the fused kernel in bfloat16.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    t, rows = q.shape[2], []
    for start in range(0, t, 128):
        end = min(start + 128, t)
        scores = (q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
        future = torch.arange(start, end, device=q.device)[:, None] < torch.arange(end, device=q.device)[None]
        weights = scores.masked_fill(future, -1e30).softmax(-1).to(q.dtype)
        rows.append(weights @ v[:, :, :end])
    return torch.cat(rows, dim=2)


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.n_embd
        self.n_head = shape.n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, self.n_head, d // self.n_head).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(q, k, v).transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Network(nn.Module):
    """GPT-2 up to the final layer norm; the unembedding is the embedding, used by `cross_entropy`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.wte = nn.Embedding(shape.vocab_size, shape.n_embd)
        self.wpe = nn.Embedding(shape.n_ctx, shape.n_embd)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.ln_f = nn.LayerNorm(shape.n_embd)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.zeros_(parameter)  # every block starts as the identity: quicker early on, no scale to tune
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, 0, 1 / math.sqrt(shape.n_embd) / 2 if name.startswith("h.") else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Residual stream after the final layer norm, [batch pos d_model]."""
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


def cross_entropy_chunk(
    hidden: Tensor, unembed: Tensor, targets: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy (nats) of a few rows, and `scale` times its gradients by `hidden` and `unembed`.

    The gradient is written out by hand, because logits and gradient of a small chunk stay in the processor's cache.
    """
    logits = (hidden @ unembed.t()).float()
    log_z = logits.logsumexp(-1)
    loss = (log_z - logits.gather(1, targets[:, None])[:, 0]).sum()
    hit = torch.arange(logits.shape[1], device=logits.device)[None] == targets[:, None]
    grad = ((torch.exp(logits - log_z[:, None]) - hit.float()) * scale).to(hidden.dtype)
    return loss, grad @ unembed, grad.t() @ hidden


# Our names against the Hugging Face names; their linear weights are transposed ("Conv1D").
_PAIRS = {
    "qkv": "attn.c_attn",
    "out": "attn.c_proj",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
    "ln_1": "ln_1",
    "ln_2": "ln_2",
}


def _names(shape: Shape) -> Iterator[tuple[str, str, bool]]:
    """(our name, Hugging Face name, transposed) for every parameter."""
    yield "wte.weight", "transformer.wte.weight", False
    yield "wpe.weight", "transformer.wpe.weight", False
    for layer in range(shape.n_layer):
        for ours, theirs in _PAIRS.items():
            for kind in ("weight", "bias"):
                transposed = kind == "weight" and not ours.startswith("ln")
                yield f"h.{layer}.{ours}.{kind}", f"transformer.h.{layer}.{theirs}.{kind}", transposed
    for kind in ("weight", "bias"):
        yield f"ln_f.{kind}", f"transformer.ln_f.{kind}", False


def to_hugging_face(state: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The state dict of a `GPT2LMHeadModel`, without the tied head."""
    return {theirs: (state[ours].t() if turn else state[ours]).contiguous() for ours, theirs, turn in _names(shape)}


def from_hugging_face(state: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The state dict of a `Network` from that of a `GPT2LMHeadModel`."""
    return {ours: (state[theirs].t() if turn else state[theirs]).contiguous() for ours, theirs, turn in _names(shape)}
