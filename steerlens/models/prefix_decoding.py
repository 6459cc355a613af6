"""`PrefixDecoder`: a HookedTransformer decodes with each prompt's keys and values held once for all its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.models.protocol import HookedModel, is_bridge
from steerlens.models.running import Cache, final_logits

# Rows leave a `PrefixDecoder` when so many remain at most: each departure copies what the others have decoded.
_WORTH_LEAVING = 0.85


class PrefixDecoder:
    """Decodes with the keys and values of a prompt held once for all its samples."""

    def __init__(
        self,
        model: HookedModel,
        cache: Cache,
        attention_mask: Int[Tensor, "unit pos"],
        *,
        samples: int,
        room: int,
        compiled: bool = False,
    ) -> None:
        self.shape = (*attention_mask.shape, samples, room)
        self._model, self._samples, self._room, self._compiled = model, samples, max(room, 1), compiled
        self._layers: list[_Keys] = []
        self._begin(attention_mask)
        for prefix in self._prefixes(cache, attention_mask):
            self._layers.append(_Keys(*prefix, rows=len(self._positions), room=self._room, fixed=compiled))
        self._run: Callable[..., Tensor] = self._whole_step
        if compiled:
            self._run = torch.compile(self._whole_step, mode="reduce-overhead", dynamic=False)

    def fill(self, cache: Cache, attention_mask: Int[Tensor, "unit pos"]) -> None:
        """Start again from another prefill of the same shape, in the same memory."""
        self._begin(attention_mask)
        for layer, prefix in zip(self._layers, self._prefixes(cache, attention_mask), strict=True):
            layer.fill(*prefix)

    def _begin(self, attention_mask: Int[Tensor, "unit pos"]) -> None:
        self._past = 0
        # The position of a row's next token, padding not counted.
        self._positions = attention_mask.sum(dim=1).repeat_interleave(self._samples)
        hidden = attention_mask == 0
        self._bias = None
        if self._compiled or bool(hidden.any()):
            zero = torch.zeros(hidden.shape, dtype=self._model.cfg.dtype, device=hidden.device)
            self._bias = zero.masked_fill(hidden, float("-inf"))[:, None, None]

    def _prefixes(self, cache: Cache, attention_mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values of each layer as `_Keys` holds them; the cache is emptied on the way."""
        for block, entry in zip(self._model.blocks, cache.entries, strict=True):  # type: ignore[attr-defined]
            keys, values = entry.past_keys, entry.past_values
            entry.past_keys = entry.past_values = None
            if self._model.cfg.positional_embedding_type == "rotary":  # the cache holds them as they were before
                keys = block.attn.apply_rotary(keys, 0, attention_mask)
            yield (
                rearrange(keys, "unit pos group d_head -> unit group d_head pos").contiguous(),
                rearrange(values, "unit pos group d_head -> unit group pos d_head").contiguous(),
            )

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows d_vocab"]:
        """Next-token logits after one more token per row."""
        if self._compiled:
            # Everything of one shape for all steps: the whole room is attended to, what is still empty is hidden.
            at = torch.full((1,), self._past, dtype=torch.long, device=tokens.device)
            later = torch.arange(self._room, device=tokens.device) > at
            empty = torch.zeros(self._room, dtype=self._model.cfg.dtype, device=tokens.device)
            hidden = empty.masked_fill(later, float("-inf"))
            logits = self._run(tokens, self._positions, self._bias, at, hidden)
            logits = logits.clone()  # the next replay of a CUDA graph writes into the same memory
        else:
            logits = self._run(tokens, self._positions, self._bias, self._past, None)
        self._past += 1
        self._positions = self._positions + 1
        return logits

    def rewind(self, steps: int) -> None:
        """Forget the last tokens of every row; what was written of them is written over."""
        self._past -= steps
        self._positions = self._positions - steps

    def leave(self, ended: Bool[Tensor, " rows"]) -> Int[Tensor, " kept"] | None:
        """The rows that stay: as many per unit as the unit with the most live ones has, units without any left out."""
        if self._compiled:  # another shape would be compiled anew
            return None
        by_unit = rearrange(ended, "(unit sample) -> unit sample", sample=self._samples)
        live = (~by_unit).sum(dim=1)
        units = live.nonzero().flatten()
        samples = int(live.max())
        if samples * len(units) > _WORTH_LEAVING * len(ended):
            return None
        first = by_unit.long().argsort(dim=1, stable=True)[units, :samples]  # live ones first, in their order
        kept = (first + units[:, None] * self._samples).flatten()
        self._samples, self._positions = samples, self._positions[kept]
        self._bias = None if self._bias is None else self._bias[units]
        for layer in self._layers:
            layer.keep(units, kept, self._past)
        return kept

    def _whole_step(
        self,
        tokens: Int[Tensor, " row"],
        positions: Int[Tensor, " row"],
        bias: Float[Tensor, "unit 1 1 pos"] | None,
        at: int | Int[Tensor, " 1"],
        hidden: Float[Tensor, " room"] | None,
    ) -> Float[Tensor, "row d_vocab"]:
        model = self._model
        resid = model.embed(tokens[:, None])  # type: ignore[attr-defined]
        if model.cfg.positional_embedding_type == "standard":
            resid = resid + model.pos_embed.W_pos[positions][:, None]  # type: ignore[attr-defined]
        for block, keys in zip(model.blocks, self._layers, strict=True):  # type: ignore[attr-defined]
            attended = self._attended(block.attn, block.ln1(resid), positions, keys, bias, at, hidden)
            if model.cfg.attn_only:
                resid = resid + attended
            elif model.cfg.parallel_attn_mlp:
                resid = resid + attended + block.apply_mlp(block.ln2(resid))
            else:
                resid = resid + attended
                resid = resid + block.apply_mlp(block.ln2(resid))
        return final_logits(model, resid[:, -1])

    def _attended(
        self,
        attn: Any,
        normed: Float[Tensor, "row 1 d_model"],
        positions: Tensor,
        keys: _Keys,
        bias: Tensor | None,
        at: int | Tensor,
        hidden: Tensor | None,
    ) -> Float[Tensor, "row 1 d_model"]:
        """What the attention of one block adds to the residual stream."""
        query, key, value = attn.calculate_qkv_matrices(normed, normed, normed)
        if self._model.cfg.positional_embedding_type == "rotary":
            query, key = _rotated(attn, query, positions), _rotated(attn, key, positions)
        own_keys, own_values = keys.with_next(key, value, at)
        groups, samples = key.shape[2], self._samples
        shared_query = rearrange(
            query, "(unit sample) 1 (group head) d -> unit group (sample head) d", sample=samples, group=groups
        )
        shared = shared_query @ keys.prefix_keys
        if bias is not None:
            shared = shared + bias
        shared = rearrange(shared, "unit group (sample head) pos -> (unit sample) group head pos", sample=samples)
        own = rearrange(query, "row 1 (group head) d -> row group head d", group=groups) @ own_keys.transpose(-1, -2)
        if hidden is not None:
            own = own + hidden
        pattern = (torch.cat([shared, own], dim=-1) / attn.attn_scale).softmax(dim=-1).to(value.dtype)
        prompt = shared.shape[-1]
        on_prompt = rearrange(
            pattern[..., :prompt], "(unit sample) group head pos -> unit group (sample head) pos", sample=samples
        )
        from_prompt = rearrange(
            on_prompt @ keys.prefix_values, "unit group (sample head) d -> (unit sample) group head d", sample=samples
        )
        mixed = from_prompt + pattern[..., prompt:] @ own_values
        weights = rearrange(attn.W_O, "head d_head d_model -> d_model (head d_head)")
        return F.linear(rearrange(mixed, "row group head d -> row 1 (group head d)"), weights, attn.b_O)


class _Keys:
    """Keys and values of one layer: of the prompt per unit, of the new tokens per row."""

    def __init__(
        self,
        prefix_keys: Float[Tensor, "unit group d_head pos"],
        prefix_values: Float[Tensor, "unit group pos d_head"],
        *,
        rows: int,
        room: int,
        fixed: bool,
    ) -> None:
        self.prefix_keys, self.prefix_values = prefix_keys, prefix_values
        shape = (rows, prefix_keys.shape[1], room, prefix_keys.shape[2])
        # Zeros, not whatever was there: hidden positions are multiplied by weight 0, which must not meet a NaN.
        self._keys, self._values = prefix_keys.new_zeros(shape), prefix_values.new_zeros(shape)
        if fixed:  # a CUDA graph reads and writes them where they are
            for held in (self.prefix_keys, self.prefix_values, self._keys, self._values):
                torch._dynamo.mark_static_address(held)

    def fill(self, prefix_keys: Tensor, prefix_values: Tensor) -> None:
        """Take over another prompt of the same shape; what was decoded is forgotten."""
        self.prefix_keys.copy_(prefix_keys)
        self.prefix_values.copy_(prefix_values)
        self._keys.zero_()
        self._values.zero_()

    def with_next(self, key: Tensor, value: Tensor, at: int | Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the new tokens [row group pos d_head], those at `at` written first."""
        if isinstance(at, int):
            self._keys[:, :, at], self._values[:, :, at] = key[:, 0], value[:, 0]
            return self._keys[:, :, : at + 1], self._values[:, :, : at + 1]
        self._keys.index_copy_(2, at, key.transpose(1, 2))
        self._values.index_copy_(2, at, value.transpose(1, 2))
        return self._keys, self._values

    def keep(self, units: Tensor, rows: Tensor, past: int) -> None:
        if len(units) < len(self.prefix_keys):
            self.prefix_keys, self.prefix_values = self.prefix_keys[units], self.prefix_values[units]
        for name in ("_keys", "_values"):
            before = getattr(self, name)
            after = before.new_zeros(len(rows), *before.shape[1:])
            after[:, :, :past] = before[rows, :, :past]
            setattr(self, name, after)


def walkable(model: HookedModel, *, longest: int) -> bool:
    """Whether `PrefixDecoder` gives what the model's own forward gives, for sequences of up to `longest` tokens.

    False for bridges, for models with hooks on them (they would not be called), and for the rarer kinds of attention
    and normalisation, which are left to TransformerLens.
    """
    if is_bridge(model):
        return False
    cfg = model.cfg
    unusual = (
        "use_attn_in",
        "use_split_qkv_input",
        "use_attn_result",
        "use_normalization_before_and_after",
        "use_attention_sinks",
        "use_logn_attn",
        "use_dynamic_ntk_rope",
        "load_in_4bit",
        "post_embedding_ln",
    )
    if any(getattr(cfg, name, False) for name in unusual):
        return False
    if getattr(cfg, "attention_dir", "causal") != "causal" or getattr(cfg, "clip_qkv", None) is not None:
        return False
    if (getattr(cfg, "attn_scores_soft_cap", None) or -1.0) > 0 or "Olmo" in (cfg.original_architecture or ""):
        return False
    if cfg.positional_embedding_type not in ("standard", "rotary"):
        return False
    # torch 2.8's F.linear is wrong there; TransformerLens knows a way round.
    if torch.device(cfg.device).type == "mps":
        return False
    if getattr(cfg, "use_local_attn", False) and (cfg.window_size or 0) < longest:
        return False
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):  # type: ignore[attr-defined]
        return False
    if cfg.positional_embedding_type == "rotary":
        return all(block.attn.rotary_cos.shape[0] >= longest for block in model.blocks)  # type: ignore[attr-defined]
    return True


def _rotated(
    attn: Any, x: Float[Tensor, "row 1 head d_head"], positions: Int[Tensor, " row"]
) -> Float[Tensor, "row 1 head d_head"]:
    """Queries or keys turned to their positions, as `AbstractAttention.apply_rotary` does with a mask."""
    turned, rest = x[..., : attn.cfg.rotary_dim], x[..., attn.cfg.rotary_dim :]
    cos, sin = attn.rotary_cos[positions][:, None, None], attn.rotary_sin[positions][:, None, None]
    return torch.cat([turned * cos + attn.rotate_every_two(turned) * sin, rest], dim=-1)
