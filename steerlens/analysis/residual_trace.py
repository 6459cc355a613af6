"""The residual stream of one run, block by block, and how its end becomes logits: what a shift is taken apart with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, kept_values
from steerlens.steering import Condition, steer
from steerlens.steering.prompts import Prompt
from steerlens.steering.roles import at_positions

_POINTS = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


@dataclass(frozen=True, eq=False)
class ResidualTrace:
    """What the blocks read and wrote at some positions of one prompt.

    Attributes:
        resid_pre: the input of each block, vectors added.
        attention, mlp: what they added to the stream; zeros where a block has none.
        resid_post: the output of each block.
        logits: of the model itself.
    """

    resid_pre: Float[Tensor, "layer pos d_model"]
    attention: Float[Tensor, "layer pos d_model"]
    mlp: Float[Tensor, "layer pos d_model"]
    resid_post: Float[Tensor, "layer pos d_model"]
    logits: Float[Tensor, "pos d_vocab"]


@torch.no_grad()
def residual_trace(model: HookedModel, prompt: Prompt, condition: Condition, positions: Sequence[int]) -> ResidualTrace:
    """One forward pass over one prompt under `condition`, kept at `positions` only (float32, or float64 as the model).

    Raises:
        SteerlensError: a model whose blocks do not show their output; a vector that does not fit.
    """
    n_layers = int(model.cfg.n_layers)
    tokens = torch.tensor([list(prompt.ids)], device=model.cfg.device)
    at = torch.tensor(list(positions), device=tokens.device)

    def asked(value: Tensor) -> Tensor:
        chosen = value[0, at.to(value.device)]
        return chosen if chosen.dtype == torch.float64 else chosen.float()

    names = [f"blocks.{layer}.{point}" for layer in range(n_layers) for point in _POINTS]
    # The vectors' hooks come first, so that what is kept of a block's input has them in it.
    with (
        steer(model, at_positions(condition, prompt.spans)) if condition.injections else nullcontext(),
        kept_values(model, names, part=asked) as kept,
    ):
        logits = model(tokens, attention_mask=torch.ones_like(tokens))[0]
        logits = logits[at.to(logits.device)]
    if not bool(logits.amax(-1).isfinite().all()):
        raise SteerlensError(
            f"under the condition {condition.label!r} the model's logits hold NaN or infinity; use a smaller "
            "coefficient, or load the model in float32"
        )
    missing = [name for name in names if name not in kept and name.endswith(("resid_pre", "resid_post"))]
    if missing:
        raise SteerlensError(f"the model shows nothing at {missing[0]}; a shift cannot be taken apart on it")
    blank = torch.zeros_like(kept[names[0]])

    def together(point: str) -> Tensor:
        # A model spread over devices leaves its blocks' outputs on each.
        return torch.stack([kept.get(f"blocks.{i}.{point}", blank).to(blank.device) for i in range(n_layers)])

    return ResidualTrace(
        resid_pre=together("hook_resid_pre"),
        attention=together("hook_attn_out"),
        mlp=together("hook_mlp_out"),
        resid_post=together("hook_resid_post"),
        logits=(logits if logits.dtype == torch.float64 else logits.float()).to(blank.device),
    )


@dataclass(frozen=True, eq=False)
class FinalNorm:
    """The last normalisation as a formula: N(r) = c(r) / σ(r) · gain + bias.

    c subtracts the mean over the width (layer norm) or nothing (RMS norm); σ(r) = √(mean(c(r)²) + ε). Without a
    normalisation σ is 1. It is read off the model's own module by probes, so that folding, weight conventions and
    TransformerLens versions do not matter.
    """

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centres: bool
    eps: float | None

    @staticmethod
    def of(model: HookedModel) -> FinalNorm:
        """The formula of the model's `ln_final`.

        Raises:
            SteerlensError: it is neither layer norm, RMS norm nor nothing.
        """
        width = int(model.cfg.d_model)
        device = model.W_U.device  # type: ignore[attr-defined]
        dtype = model.W_U.dtype  # type: ignore[attr-defined]
        module = getattr(model, "ln_final", None)
        if module is None or model.cfg.normalization_type is None:
            ones = torch.ones(width, dtype=torch.float64, device=device)
            return FinalNorm(ones, torch.zeros_like(ones), centres=False, eps=None)

        def norm(rows: Tensor) -> Tensor:
            return _exact(module(_at_home(module, rows[None, None].to(dtype)))[0, 0]).to(device)

        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(width, generator=generator).to(device)
        bias = norm(torch.zeros_like(probe))
        # ±1 has mean 0 and mean square 1, whatever the kind of norm (the width of a model is even).
        signs = torch.tensor([1.0, -1.0], device=device).repeat(width // 2)
        eps = float(model.cfg.eps)
        gain = (norm(signs) - bias) * _exact(signs) * (1 + eps) ** 0.5
        for centres in (True, False):
            found = FinalNorm(gain, bias, centres, eps)
            shifted = probe + 1.0  # tells layer norm, blind to a common offset, from RMS norm
            expected = _exact(found.centred(shifted)) / found.scale(shifted) * gain + bias
            tolerance = 1e-3 if dtype in (torch.float32, torch.float64) else 5e-2
            if torch.allclose(norm(shifted), expected, atol=tolerance, rtol=tolerance):
                return found
        raise SteerlensError("the last normalisation is neither layer norm nor RMS norm; a shift cannot be taken apart")

    def centred(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """c(r), in float64 where the device has it: a linear map."""
        resid = _exact(resid)
        return resid - resid.mean(-1, keepdim=True) if self.centres else resid

    def scale(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"]:
        """σ(r)."""
        if self.eps is None:
            return torch.ones_like(_exact(resid)[..., :1])
        return (self.centred(resid).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()


def read_out(model: HookedModel, resid: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_vocab"]:
    """Log-probabilities if the model ended at these residual-stream vectors: its own last norm and unembedding."""
    like, norm = model.W_U, model.ln_final  # type: ignore[attr-defined]
    normed = norm(_at_home(norm, resid[None].to(like.device, like.dtype)))
    logits = model.unembed(normed.to(like.device))[0]  # type: ignore[attr-defined]
    cap = getattr(model.cfg, "output_logits_soft_cap", None)
    if cap is not None and cap > 0:
        logits = cap * torch.tanh(logits / cap)
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def token_directions(model: HookedModel, ids: Int[Tensor, " token"]) -> Float[Tensor, "d_model token"]:
    """Columns of the unembedding, float64 where the device has it."""
    return _exact(model.W_U[:, ids.to(model.W_U.device)])  # type: ignore[attr-defined]


def _at_home(module: torch.nn.Module, values: Tensor) -> Tensor:
    """The values where the module's weights are: a spread model's last norm need not be where its unembedding is."""
    weight = next(module.parameters(), None)
    return values if weight is None else values.to(weight.device)


def _exact(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()
