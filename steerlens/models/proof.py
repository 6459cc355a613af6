"""Proofs: a converted model computes what the Hugging Face model computes that it was made from.

Conversions go wrong silently: a kind of rotary scaling is not known, biases are dropped, a window is forgotten. Nothing
of that shows in the shape of a result, all of it in its numbers. So the original answers a probe before it is
converted, and the converted model must answer it alike: without a cache, with one, and in the stream of every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError, first_line
from steerlens.models.context import own_context
from steerlens.models.decoding import Decoders
from steerlens.models.protocol import HookedModel
from steerlens.models.quantized import packed
from steerlens.models.running import prefill, resid_pre_hook

# Rotary scaling, windows and wrong positions show at 40 tokens; at 8 they do not.
_TOKENS = 48
# Of the probe, so many are given to the cached pass one by one; a second row holds only half of it, and padding.
# (Each goes through the whole model, which takes long where every block is made ready first: then one must do.)
_STEPS = 3
# So many tokens show whether later ones are looked at.
_PREFIX = 8
# In float32 the log-probabilities of a right conversion differ by the order of sums: by 3e-6 of their spread over the
# vocabulary in small models, 3e-5 in real ones. Wrong ones differ by a hundredth of it and more. Log-probabilities are
# sums with a number near 10, whose rounding is the least that can be asked for.
_OF_THE_SPREAD, _LEAST, _MOST = 5e-4, 2e-5, 2e-3
# Half precision rounds by 0.005 to 0.02 nats on average: only what is wrong throughout can show.
_MEAN_IN_HALF = 0.1
# Of the norm of the stream at a position (right conversions: 1e-5).
_STREAM, _STREAM_IN_HALF = 5e-4, 0.1
_KEPT = "_steerlens_proof"


@dataclass(frozen=True)
class Reference:
    """What an original says to the probe.

    Attributes:
        tokens: the probe, ids of the vocabulary drawn at random, always the same.
        log_probs: of every next token, in float32 on the CPU.
        streams: the residual stream at the input of each block; none where the original does not give it.
        half: whether the original computes in half precision, or rounds as much (packed weights).
    """

    tokens: Int[Tensor, "row pos"]
    log_probs: Float[Tensor, "row pos d_vocab"]
    streams: tuple[Float[Tensor, "row pos d_model"], ...]
    half: bool

    @property
    def tolerance(self) -> float:
        """How far a log-probability may be off in float32, in nats."""
        spread = self.log_probs.std(dim=-1).mean().item()
        return min(max(_OF_THE_SPREAD * spread, _LEAST), _MOST)


@dataclass(frozen=True)
class Proof:
    """How far a converted model is from its original, on the probe.

    Attributes:
        model_class: of the converted model.
        processed: whether its weights are folded and centred.
        tokens: of the probe.
        log_probs: largest difference of a log-probability (nats), without a cache.
        cached: the same at prefill and in steps after it, with prompts of unequal length in a batch.
        layers: whose residual stream could be compared.
        stream: largest difference of the residual stream, as a part of its norm at the position (centred, where
            processing has centred it).
        where: what is farther away than rounding explains, in words; empty if nothing is.
    """

    model_class: str
    processed: bool
    tokens: int
    log_probs: float
    cached: float
    layers: int
    stream: float
    where: str

    @property
    def holds(self) -> bool:
        """Whether the model computes what its original computes."""
        return not self.where

    def __str__(self) -> str:
        """The proof in a line, as settings of results carry it."""
        streams = f"; residual streams of {self.layers} layers within {self.stream:.1e}" if self.layers else ""
        return (
            f"log-probabilities of {self.tokens} tokens within {self.log_probs:.1e} nats of Hugging Face, "
            f"{self.cached:.1e} with a cache{streams}"
        )


def proof_of(model: HookedModel) -> Proof | None:
    """The proof that `load_model` gave for a model, or None if there is none (`prove=False`, or a live model)."""
    proof = vars(model).get(_KEPT)
    return proof if isinstance(proof, Proof) else None


def keep_proof(model: HookedModel, proof: Proof) -> None:
    """Nothing is returned: the model carries the proof from now on."""
    vars(model)[_KEPT] = proof  # not setattr, which a bridge passes on to what it wraps


@torch.no_grad()
def reference(hf_model: Any, tokenizer: Any, *, in_float32: bool = False) -> Reference:
    """What the original says to the probe; it is changed in nothing.

    Args:
        in_float32: it computes in float32, whatever its weights are in between (see `steerlens.models.pieces`).

    Raises:
        SteerlensError: a model that predicts no next tokens from those before them.
    """
    kind = type(hf_model).__name__
    if getattr(hf_model.config, "is_encoder_decoder", False):
        raise SteerlensError(f"{kind} has an encoder and a decoder; steerlens steers decoder-only language models")
    tokens = _probe(hf_model, tokenizer).to(next(hf_model.parameters()).device)
    ones = torch.ones_like(tokens)
    try:
        output = hf_model(input_ids=tokens, attention_mask=ones, use_cache=True, output_hidden_states=True)
    except (RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        why = f" ({reason})" if (reason := packed(hf_model)) else ""
        raise SteerlensError(
            f"{kind} itself{why} stops at {tokens.numel()} tokens with {type(error).__name__}: {first_line(error)}"
        ) from None
    logits = getattr(output, "logits", None)
    if logits is None or logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        raise SteerlensError(
            f"{kind} has no language-model head, so it predicts no tokens; load it with AutoModelForCausalLM"
        )
    if logits.isnan().any():
        raise SteerlensError(
            f"{kind} itself predicts NaN for tokens {tokens[0, :4].tolist()}…; its weights are damaged"
        )
    alone = hf_model(input_ids=tokens[:, :_PREFIX], attention_mask=ones[:, :_PREFIX], use_cache=False).logits
    # Kernels for packed weights compute in half precision; those of 8 bits round a row by what else is in the batch.
    rounds = logits.dtype != torch.float32 or _weights_in_half(hf_model)
    half = not in_float32 and (packed(hf_model) is not None or rounds)
    seen = (alone.float() - logits[:, :_PREFIX].float()).abs().mean() / logits.float().std()
    if seen > (5e-2 if half else 1e-3):
        raise SteerlensError(f"{kind} looks at later tokens too, so it is no language model that can be steered")
    if getattr(output, "past_key_values", None) is None:
        raise SteerlensError(f"{kind} keeps a recurrent state in place of keys and values, which steerlens cannot run")
    text = hf_model.config.get_text_config()
    streams = tuple(output.hidden_states or ())[: getattr(text, "num_hidden_layers", 0)]
    return Reference(
        tokens.cpu(),
        _log_probs(logits),
        tuple(one.float().cpu() for one in streams if one.shape[:2] == tokens.shape and one.ndim == 3),
        half,
    )


def _weights_in_half(hf_model: Any) -> bool:
    return next(hf_model.parameters()).dtype in (torch.bfloat16, torch.float16)


@torch.no_grad()
def compare(model: HookedModel, original: Reference, *, processed: bool, steps: int = _STEPS) -> Proof:
    """How far `model` is from what the original said.

    Args:
        steps: so many tokens of the probe are given to the cached pass one by one.
    """
    tokens = original.tokens.to(model.cfg.device)
    names = [resid_pre_hook(layer) for layer in range(model.cfg.n_layers)]
    logits, found = model.run_with_cache(
        tokens, attention_mask=torch.ones_like(tokens), names_filter=names, return_cache_object=False
    )
    streams = [found[name].float().cpu() for name in names if name in found]
    if logits.shape != original.log_probs.shape:
        where = f"logits of shape {list(logits.shape)}, the original's have {list(original.log_probs.shape)}"
        return Proof(type(model).__name__, processed, tokens.numel(), float("inf"), float("inf"), 0, 0.0, where)
    plain = (_log_probs(logits) - original.log_probs).abs()
    cached = _cached_differences(model, tokens, original.log_probs, steps)
    layers = torch.zeros(0)
    if [one.shape for one in streams] == [one.shape for one in original.streams]:
        layers = torch.tensor([_apart(*pair, processed) for pair in zip(streams, original.streams, strict=True)])
    where = _where(plain, cached, layers, original)
    return Proof(
        model_class=type(model).__name__,
        processed=processed,
        tokens=tokens.numel(),
        log_probs=plain.max().item(),
        cached=cached.max().item(),
        layers=len(layers),
        stream=max(layers.tolist(), default=0.0),
        where=where,
    )


def _where(plain: Tensor, cached: Tensor, layers: Float[Tensor, " layer"], original: Reference) -> str:
    """What is farther away than rounding explains."""
    for differences, how in ((plain, ""), (cached, " with a key-value cache")):
        far = differences.mean() if original.half else differences.max()
        most = _MEAN_IN_HALF if original.half else original.tolerance
        if not far <= most:  # not "far > most", which is False for NaN
            by_row = differences.nan_to_num(nan=float("inf")).amax(dim=-1)
            if how and by_row[0].max() <= most < by_row[1].max():
                how = " where a prompt is padded in a batch"
            first = (by_row.amax(dim=0) > most).nonzero().flatten().tolist()[:1]
            start = f", from token {first[0]} on" if first and not how else ""
            return f"log-probabilities differ by {far:.2g} nats{' on average' if original.half else ''}{how}{start}"
    for layer, part in enumerate(layers.tolist()):
        if not part <= (_STREAM_IN_HALF if original.half else _STREAM):
            return f"the residual stream at layer {layer} differs by {part:.2g} of its norm"
    return ""


def _cached_differences(
    model: HookedModel, tokens: Tensor, expected: Tensor, steps: int
) -> Float[Tensor, "row step d_vocab"]:
    """Of log-probabilities after a prefill and after each step, as sampling computes them. The second row is the
    beginning of the first, so it is padded on the left.
    """
    length = tokens.shape[1] - steps
    short = (length + 1) // 2
    prompts, mask = tokens[:, :length].repeat(2, 1), torch.ones_like(tokens[:, :length]).repeat(2, 1)
    prompts[1, -short:] = tokens[0, :short]  # what else stands in the row must not matter
    mask[1, : length - short] = 0
    ends = torch.tensor([length, short])
    logits, cache = prefill(model, prompts, mask)
    differences = [_log_probs(logits) - expected[0, ends - 1]]
    decoder = Decoders(model).begin(cache, mask, samples=1, room=steps)
    for _ in range(steps):
        logits = decoder.step(tokens[0, ends.to(tokens.device)])
        differences.append(_log_probs(logits) - expected[0, ends])
        ends = ends + 1
    return torch.stack(differences, dim=1).abs()


def _apart(mine: Tensor, theirs: Tensor, processed: bool) -> float:
    """How far two streams are apart, relative to the norm at the position."""
    far = _relative(mine, theirs)
    if not processed:
        return far
    # Layer norm is blind to the mean, which processing takes out of all that is written; RMS norm is not, and it stays.
    return min(far, _relative(mine - mine.mean(-1, keepdim=True), theirs - theirs.mean(-1, keepdim=True)))


def _relative(mine: Tensor, theirs: Tensor) -> float:
    return ((mine - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp_min(1e-6)).max().item()


def _probe(hf_model: Any, tokenizer: Any) -> Int[Tensor, "row pos"]:
    """BOS and ordinary tokens, drawn at random, always the same ones."""
    text = hf_model.config.get_text_config()
    size = min(hf_model.get_input_embeddings().weight.shape[0], int(getattr(text, "vocab_size", 0) or 1 << 40))
    special = {id for id in tokenizer.all_special_ids if id < size}
    special |= {id for name, id in vars(hf_model.config).items() if name.endswith("_token_id") and isinstance(id, int)}
    if size - len(special) < 2:
        special = set()
    length = min(_TOKENS, own_context(hf_model.config) or _TOKENS)
    drawn = torch.randint(0, size, (8 * length,), generator=torch.Generator().manual_seed(0)).tolist()
    row = ([id for id in drawn if id not in special] + drawn)[:length]
    if tokenizer.bos_token_id is not None and tokenizer.bos_token_id < size:
        row[0] = tokenizer.bos_token_id
    return torch.tensor([row])


def _log_probs(logits: Float[Tensor, "*rows d_vocab"]) -> Float[Tensor, "*rows d_vocab"]:
    return logits.float().cpu().log_softmax(-1)
