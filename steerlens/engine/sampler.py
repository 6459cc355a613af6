"""Next-token sampling whose result for a row depends on that row alone.

Tensors in, token ids out; no model, no tokenizer, no generator state. Three pieces:

- `Sampling`, the settings, and `sampling_log_probs`, the distribution that they define;
- `row_keys` and `uniforms`: one number in [0, 1) per row and step from a counter-based hash. A completion is a function
  of (key, step, logits) and of nothing else, and the caller's random state is neither read nor written;
- `TokenCounts` and `next_tokens`: how often each token stands in a row, and the draw itself.

**The distribution** (that of `transformer_lens.utils.sample_logits`; `Sampling` lists the differences). Logits are
lifted to float32 and divided by the temperature; a token's logit loses `frequency_penalty` for each time the token
stands in the row; `top_k` keeps the k largest, and whatever equals the k-th; `top_p` goes down from the most likely
token and keeps every token before which the cumulated probability does not exceed `top_p`, so the token that crosses
the threshold is kept. What is left is renormalised. Equal logits are ordered by token id, lowest first.

**Whole numbers.** A floating-point sum depends on the order of addition, and kernels choose that order by the shape of
the batch; a row could then fall on the other side of a threshold because of its neighbours. So weights become integers,
`floor(exp(logit - max) * 2**bits)`, as soon as they exist, and what follows (totals, cumulated sums, thresholds) is
integer addition, which has no order; maxima and sorting are exact anyway. `bits` is as large as int64 allows for the
vocabulary (46 for GPT-2's), finer than the float32 exponentials themselves. A token below `2**-bits` of the most likely
one is never drawn. Where the cumulated probability meets `top_p` to within float32 rounding (about 1e-7), the side is
fixed but arbitrary.

**Logits that are not finite.** `-inf` means never. A row that holds NaN or `+inf`, or nothing but `-inf`, is an error
on the CPU; elsewhere an error would need a synchronisation, and the row's token is `NO_TOKEN` (-1) instead.

Apple's MPS has no float64; what comes from there is computed on the CPU.
"""

from __future__ import annotations

import hashlib
import math
import operator
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Int64
from torch import Tensor

from steerlens.errors import SteerlensError

NO_TOKEN = -1
"""The "token" of a row without a distribution, where raising an error would need a synchronisation."""

_GROUP = 1 << 16  # elements: 256 kB of float32 logits stay in the cache of a core
_BINS, _BINS_PER_NAT = 1024, 32.0  # reaches 32 nats below the maximum, and the last bin takes all the rest
_ELEMENTS_AT_ONCE = 1 << 26  # full-vocabulary work on a device goes by groups of rows: about 3 GB of scratch

# splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): increment and multipliers
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the defaults are those of the ActAdd paper (arXiv 2308.10248).

    temperature: 0 takes the largest raw logit and ignores all else.
    top_k: keeps the k most likely tokens, and those equal to the k-th; None keeps all. May exceed the vocabulary.
    top_p: nucleus; 1 keeps all.
    frequency_penalty: what a token's logit loses, after the division by the temperature, for each time it stands in the
        row, prompt and BOS included.

    As TransformerLens' `sample_logits`, except: padding is not counted (there it is); `top_k` and `top_p` both apply
    if both are set, `top_k` first (there `top_k` switches `top_p` off without a word); a negative penalty is applied
    (there it is ignored); ties are ordered.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 0.3
    frequency_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SteerlensError(f"temperature is {self.temperature}; needs a finite number >= 0 (0 is greedy)")
        if self.top_k is not None and (isinstance(self.top_k, bool) or self.top_k != int(self.top_k) or self.top_k < 1):
            raise SteerlensError(f"top_k is {self.top_k}; needs a whole number >= 1, or None to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise SteerlensError(f"top_p is {self.top_p}; needs 0 < top_p <= 1 (1 keeps all tokens)")
        if not math.isfinite(self.frequency_penalty):
            raise SteerlensError(f"frequency_penalty is {self.frequency_penalty}; needs a finite number (0 is none)")

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is always taken; then neither uniforms nor counts are looked at."""
        return self.temperature == 0

    @property
    def needs_counts(self) -> bool:
        """Whether `next_tokens` has to be given counts."""
        return not self.greedy and self.frequency_penalty != 0


# --------------------------------------------------------------------------------------------------- random numbers


def row_keys(seed: int, prompt_ids: Sequence[Sequence[int]], n_samples: int) -> Int64[Tensor, "prompts samples"]:
    """The key of every completion's random stream: a stable 64-bit hash of (seed, the prompt's tokens, sample index).

    On the CPU. Equal prompts get equal keys, and so do one prompt's completions under different conditions: common
    random numbers, which make differences between conditions vary less.
    """
    if n_samples < 0:
        raise SteerlensError(f"n_samples is {n_samples}; needs a whole number >= 0")
    try:
        seed = operator.index(seed)
    except TypeError:
        raise SteerlensError(f"the seed must be a whole number, got {seed!r}") from None
    keys = torch.empty(len(prompt_ids), n_samples, dtype=torch.int64, device="cpu")
    for row, ids in enumerate(prompt_ids):
        # Seed and length end in a mark and the rest has a fixed width, so that no two inputs have the same bytes.
        stem = hashlib.blake2b(f"{seed}:{len(ids)}:".encode(), digest_size=8, person=b"steerlens")
        stem.update(struct.pack(f"<{len(ids)}q", *(int(token) for token in ids)))
        for sample in range(n_samples):
            leaf = stem.copy()
            leaf.update(struct.pack("<q", sample))
            keys[row, sample] = int.from_bytes(leaf.digest(), "little", signed=True)
    return keys


def uniforms(keys: Int64[Tensor, "batch"], step: int | Int[Tensor, "batch"]) -> Float64[Tensor, "batch"]:
    """One number in [0, 1) per row, a multiple of 2**-53; on the keys' device (MPS: the CPU), the same on every device.

    step: one for all rows, or one per row. Source: splitmix64, its output function also applied to the key beforehand,
    so that neighbouring keys (0, 1, 2 …) give unrelated streams too.
    """
    if keys.device.type == "mps":
        keys, step = keys.cpu(), step if isinstance(step, int) else step.cpu()
    offset = _signed((step + 1) * _GOLDEN) if isinstance(step, int) else (step.long() + 1) * _signed(_GOLDEN)
    # Products and sums of int64 wrap around in PyTorch: the arithmetic modulo 2**64 that is wanted here.
    return _shifted(_mixed(_mixed(keys) + offset), 11).double() * 2.0**-53


def _mixed(x: Int64[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
    x = (x ^ _shifted(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shifted(x, 27)) * _signed(_MIX_2)
    return x ^ _shifted(x, 31)


def _shifted(x: Int64[Tensor, "batch"], bits: int) -> Int64[Tensor, "batch"]:
    """Logical right shift: the shift of int64 repeats the sign, the mask takes that away."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The number modulo 2**64, as the signed integer with the same bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


# ------------------------------------------------------------------------------------------------------------ counts


@dataclass(frozen=True)
class TokenCounts:
    """How often each token stands in each row, without a table of [batch vocab].

    A row has one slot per position; slot s says that `tokens[row, s]` stands in the row `times[row, s]` times. A token
    that stands there more than once has several slots, all with the same number, and a slot without a token (padding)
    repeats another slot of its row. So writing all slots into a row of logits gives one result in any order of writing.
    Twelve bytes per position: at 200 rows of 60 tokens 0.1 MB, where 16-bit counts over GPT-2's vocabulary are 20 MB.
    """

    tokens: Int64[Tensor, "batch slots"]
    times: Int32[Tensor, "batch slots"]

    @classmethod
    def of_prompts(
        cls,
        tokens: Int[Tensor, "batch pos"],
        mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
    ) -> TokenCounts:
        """The counts of prompts, BOS included. mask: nonzero where a token is real; None: everywhere."""
        tokens = tokens.long()
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        if tokens.shape != real.shape:
            given = f"tokens are {list(tokens.shape)} but mask is {list(real.shape)}"
            raise SteerlensError(f"{given}; give one entry per token")
        if tokens.shape[1] == 0:
            return cls(tokens, tokens.int())
        first = tokens.gather(1, real.int().argmax(1, keepdim=True))
        filled = torch.where(real, tokens, torch.where(real.any(1, keepdim=True), first, 0))
        # Padding becomes a number that no token has; a token's count is the width of its run in the sorted row.
        ordered = torch.where(real, tokens, torch.iinfo(torch.int64).max).sort(1).values
        times = torch.searchsorted(ordered, filled, right=True) - torch.searchsorted(ordered, filled)
        return cls(filled, times.int())

    def add(self, tokens: Int64[Tensor, "batch"]) -> TokenCounts:
        """The counts after one more token per row (`NO_TOKEN` counts as token 0: that row is lost anyway)."""
        new = tokens.clamp(min=0)[:, None]
        same = self.tokens == new
        before = torch.where(same, self.times, 0)
        # Slots of one token agree, so any of them says how often it stood there; without slots there is nothing to ask.
        before = before.amax(1, keepdim=True) if before.shape[1] else before.sum(1, keepdim=True, dtype=torch.int32)
        return TokenCounts(torch.cat([self.tokens, new], 1), torch.cat([self.times + same, before + 1], 1))

    def select(self, rows: Int64[Tensor, "rows"]) -> TokenCounts:
        """The counts of these rows, in this order: for when finished rows leave the batch."""
        return TokenCounts(self.tokens.index_select(0, rows), self.times.index_select(0, rows))

    def repeat(self, n: int) -> TokenCounts:
        """Every row n times in succession: a prompt's counts for its n samples."""
        return TokenCounts(self.tokens.repeat_interleave(n, 0), self.times.repeat_interleave(n, 0))

    def to(self, device: torch.device | str) -> TokenCounts:
        """The counts on a device."""
        return TokenCounts(self.tokens.to(device), self.times.to(device))

    def dense(self, d_vocab: int) -> Int32[Tensor, "batch vocab"]:
        """The full table."""
        table = torch.zeros(len(self.tokens), d_vocab, dtype=torch.int32, device=self.tokens.device)
        return table.scatter_(1, self.tokens, self.times)


# ---------------------------------------------------------------------------------------------- distribution and draw


@torch.no_grad()
def sampling_log_probs(
    logits: Float[Tensor, "batch vocab"], sampling: Sampling, counts: TokenCounts | None = None
) -> Float32[Tensor, "batch vocab"]:
    """The log-probabilities (nats) from which `next_tokens` draws; -inf for tokens that are filtered out.

    Sorts the whole vocabulary: for analysis and tests, not for a decoding loop. Greedy: 0 at the token, -inf elsewhere.
    """
    _check(logits, sampling, counts)
    if logits.device.type == "mps":
        return sampling_log_probs(logits.cpu(), sampling, counts and counts.to("cpu")).to(logits.device)
    result = torch.full(logits.shape, -math.inf, dtype=torch.float32, device=logits.device)
    if sampling.greedy:
        return result.scatter_(1, _largest_logit(logits)[:, None], 0.0)
    for rows in _groups(logits):
        x = _adjusted(logits[rows], sampling, counts, rows)
        _refuse_broken(x.amax(1), first_row=rows.start)
        if sampling.top_p < 1:
            ordered, ids = x.sort(dim=1, descending=True, stable=True)
            kept = torch.zeros_like(ids, dtype=torch.bool).scatter_(1, ids, _nucleus(ordered, sampling.top_p)[1])
            x = x.masked_fill_(~kept, -math.inf)
        result[rows] = x.log_softmax(1)
    return result


@torch.no_grad()
def next_tokens(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"] | None = None,
    counts: TokenCounts | None = None,
    *,
    allow_sync: bool = False,
) -> Int64[Tensor, "batch"]:
    """The next token of every row: the inverse of the row's cumulative distribution, at its uniform number.

    Tokens are cumulated in descending order of likelihood (by token id when top_p is 1, which needs no sorting). The
    logits stay as they are. uniforms and counts may be left out where they are not looked at (greedy; penalty 0).

    On the CPU the nucleus is sought among the largest logits; rows where it is not complete there, which integers tell
    exactly, are drawn from the whole vocabulary. Elsewhere, telling whether there is such a row would make the host
    wait for the device at every token; so the vocabulary is sorted for all rows, which never waits. allow_sync: wait
    instead, and sort only where needed: better when sorting takes longer than a wait (tens of microseconds), as it
    does for large batches. The tokens are the same.
    """
    _check(logits, sampling, counts)
    if sampling.greedy:
        return _largest_logit(logits)
    if uniforms is None or uniforms.shape != logits.shape[:1]:
        given = "none" if uniforms is None else f"shape {list(uniforms.shape)}"
        raise SteerlensError(f"uniforms: {given}, for {len(logits)} rows of logits; give one number in [0, 1) per row")
    if len(logits) == 0:
        return torch.empty(0, dtype=torch.int64, device=logits.device)
    if logits.device.type == "mps":
        return next_tokens(logits.cpu(), sampling, uniforms.cpu(), counts and counts.to("cpu")).to(logits.device)
    if sampling.top_p == 1:
        return _drawn_by_id(logits, sampling, uniforms, counts)
    on_cpu = logits.device.type == "cpu"
    if not on_cpu and not allow_sync:
        return _drawn_by_sorting(logits, sampling, uniforms, counts)
    top = _top_by_row(logits, sampling, counts) if on_cpu else _top_by_group(logits, sampling, counts)
    tokens, found = _drawn_from_top(top, uniforms, sampling.top_p)
    missed = (~found).nonzero().flatten()
    if len(missed):
        draw = _drawn_by_bins if on_cpu else _drawn_by_sorting
        tokens[missed] = draw(logits[missed], sampling, uniforms[missed], counts and counts.select(missed))
    return tokens


def _check(logits: Tensor, sampling: Sampling, counts: TokenCounts | None) -> None:
    if logits.ndim != 2 or logits.shape[1] == 0 or not logits.is_floating_point():
        raise SteerlensError(f"logits are {logits.dtype} {list(logits.shape)}; give floating-point [batch vocab]")
    if sampling.needs_counts and counts is None:
        given = f"frequency_penalty is {sampling.frequency_penalty} but counts are not given"
        raise SteerlensError(f"{given}; give TokenCounts.of_prompts(…), or set the penalty to 0")
    if sampling.needs_counts and counts is not None and len(counts.tokens) != len(logits):
        given = f"counts have {len(counts.tokens)} rows but logits have {len(logits)}"
        raise SteerlensError(f"{given}; select the same rows of both")


def _settled(tokens: Int64[Tensor, "batch"], largest: Float[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
    """The tokens, but none (on the CPU: an error) for rows without a distribution."""
    if tokens.device.type == "cpu":
        _refuse_broken(largest)
        return tokens
    return torch.where(largest.isfinite(), tokens, NO_TOKEN)


def _refuse_broken(largest: Float[Tensor, "batch"], *, first_row: int = 0) -> None:
    """Raise if a row has no distribution. Its largest logit tells: NaN and +inf win any maximum, -inf only its like."""
    broken = (~largest.isfinite()).nonzero().flatten().tolist()
    if broken:
        row, value = first_row + broken[0], largest[broken[0]].item()
        raise SteerlensError(
            f"row {row}: the largest logit (after temperature and penalty) is {value}; needs a finite one: weaken the "
            "steering, raise the temperature, or compute in float32"
        )


def _largest_logit(logits: Float[Tensor, "batch vocab"]) -> Int64[Tensor, "batch"]:
    tokens = logits.argmax(1)  # the first of several equal ones, as documented
    return _settled(tokens, logits.gather(1, tokens[:, None])[:, 0])


def _groups(logits: Float[Tensor, "batch vocab"]) -> list[slice]:
    """Rows to work on at a time. One on the CPU: it stays in the cache, and every kernel sees the same shape in every
    batch (a kernel may treat the last few elements, which fill no vector register, by other code than the rest)."""
    size = 1 if logits.device.type == "cpu" else max(1, _ELEMENTS_AT_ONCE // logits.shape[1])
    return [slice(start, min(start + size, len(logits))) for start in range(0, len(logits), size)]


def _adjusted(
    logits: Float[Tensor, "rows vocab"], sampling: Sampling, counts: TokenCounts | None, rows: slice
) -> Float32[Tensor, "rows vocab"]:
    """A copy of the logits in float32 after temperature, penalty and top_k; `counts` are those of the whole batch."""
    x = logits.to(torch.float32, copy=True)
    if sampling.temperature != 1:
        x /= sampling.temperature
    if sampling.needs_counts and counts is not None:
        tokens, times = counts.tokens[rows], counts.times[rows]
        x.scatter_(1, tokens, x.gather(1, tokens) - times.to(torch.float32) * sampling.frequency_penalty)
    if sampling.top_k is not None and sampling.top_k < x.shape[1]:
        x.masked_fill_(x < x.topk(sampling.top_k, dim=1).values[:, -1:], -math.inf)
    return x


def _weights(
    x: Float32[Tensor, "*rows vocab"], largest: Float32[Tensor, "*#rows 1"], size: int
) -> Int64[Tensor, "*rows vocab"]:
    """Whole numbers proportional to the probabilities. size: of the vocabulary; the sum over it is at most 2**62."""
    return (x - largest).exp_().mul_(2.0 ** (62 - (size - 1).bit_length())).long()


def _point(total: Int64[Tensor, "..."], fraction: float | Float64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """The whole number in [0, total) at this fraction of it; the first token to cumulate more is meant."""
    return torch.minimum((total.double() * fraction).long(), total - 1)  # near 1 the product is rounded up to the total


def _nucleus(
    ordered: Float32[Tensor, "rows vocab"], top_p: float
) -> tuple[Int64[Tensor, "rows vocab"], Bool[Tensor, "rows vocab"]]:
    """Cumulated weights of a descending row, and which of its tokens are kept."""
    weights = _weights(ordered, ordered[:, :1], ordered.shape[1])
    cumulated = weights.cumsum(1)
    return cumulated, cumulated - weights <= _point(cumulated[:, -1:], top_p)


def _drawn_by_id(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None,
) -> Int64[Tensor, "batch"]:
    """Tokens drawn without a nucleus."""
    tokens, largest = torch.empty_like(uniforms, dtype=torch.int64), torch.empty_like(uniforms)
    for rows in _groups(logits):
        x = _adjusted(logits[rows], sampling, counts, rows)
        top = x.amax(1, keepdim=True)
        cumulated = _weights(x, top, x.shape[1]).cumsum(1)
        target = _point(cumulated[:, -1:], uniforms[rows, None])
        # A broken row may point behind the end; it must not reach into memory before it is settled.
        tokens[rows] = torch.searchsorted(cumulated, target, right=True)[:, 0].clamp_(max=x.shape[1] - 1)
        largest[rows] = top[:, 0]
    return _settled(tokens, largest)


def _drawn_by_sorting(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None,
) -> Int64[Tensor, "batch"]:
    """Tokens drawn from the nucleus without a decision on the host.

    A threshold search without sorting needs about 32 masked sums over the vocabulary, or three rounds of histograms
    with atomic additions for each of two thresholds. A radix sort moves less memory than either, and is there already.
    """
    tokens, largest = torch.empty_like(uniforms, dtype=torch.int64), torch.empty_like(uniforms)
    for rows in _groups(logits):
        ordered, ids = _adjusted(logits[rows], sampling, counts, rows).sort(dim=1, descending=True, stable=True)
        cumulated, kept = _nucleus(ordered, sampling.top_p)
        last = kept.sum(1, keepdim=True).sub_(1).clamp_(min=0)  # below 0 only in a broken row
        target = _point(cumulated.gather(1, last), uniforms[rows, None])
        place = torch.searchsorted(cumulated, target, right=True).clamp_(max=ids.shape[1] - 1)
        tokens[rows] = ids.gather(1, place)[:, 0]
        largest[rows] = ordered[:, 0]
    return _settled(tokens, largest)


@dataclass(frozen=True)
class _Top:
    """The largest logits of each row in descending order, ties in any order, with ids and weights; each row's total."""

    values: Float32[Tensor, "batch width"]
    ids: Int64[Tensor, "batch width"]
    weights: Int64[Tensor, "batch width"]
    total: Int64[Tensor, "batch 1"]
    complete: bool  # the width is the vocabulary


def _top_by_row(logits: Float[Tensor, "batch vocab"], sampling: Sampling, counts: TokenCounts | None) -> _Top:
    """The top slice, each row's weights computed by themselves (see `_groups` for the reason)."""
    batch, vocab = logits.shape
    # 256 instead of 64 costs as much as drawing every fourth row from the whole vocabulary instead (measured at GPT-2's
    # size), and a nucleus of less than half of the probability rarely has more than 64 tokens.
    width = min(64 if sampling.top_p <= 0.5 else 256, vocab)
    ids = torch.empty(batch, width, dtype=torch.int64, device=logits.device)
    values, weights = torch.empty_like(ids, dtype=torch.float32), torch.empty_like(ids)
    total = torch.empty_like(ids[:, :1])
    # What happens to several rows at once (quotients, differences, comparisons) is exactly rounded, whatever the shape;
    # topk gives every thread a row.
    size = max(torch.get_num_threads(), _GROUP // vocab)
    for start in range(0, batch, size):
        rows = slice(start, min(start + size, batch))
        x = _adjusted(logits[rows], sampling, counts, rows)
        values[rows], ids[rows] = x.topk(width, dim=1)
        for row, line in enumerate(x, start):
            weighed = _weights(line, values[row, :1], vocab)
            torch.index_select(weighed, 0, ids[row], out=weights[row])
            torch.sum(weighed, 0, keepdim=True, out=total[row])
    _refuse_broken(values[:, 0])
    return _Top(values, ids, weights, total, complete=width == vocab)


def _top_by_group(logits: Float[Tensor, "batch vocab"], sampling: Sampling, counts: TokenCounts | None) -> _Top:
    """The top slice, many rows at a time: for devices, where an elementwise kernel treats all elements alike."""
    vocab = logits.shape[1]
    width = min(256, vocab)
    parts = []
    for rows in _groups(logits):
        x = _adjusted(logits[rows], sampling, counts, rows)
        values, ids = x.topk(width, dim=1)
        weights = _weights(x, values[:, :1], vocab)
        parts.append((values, ids, weights.gather(1, ids), weights.sum(1, keepdim=True)))
    values, ids, weights, total = (torch.cat(part) for part in zip(*parts, strict=True))
    return _Top(values, ids, weights, total, complete=width == vocab)


def _drawn_from_top(
    top: _Top, uniforms: Float64[Tensor, "batch"], top_p: float
) -> tuple[Int64[Tensor, "batch"], Bool[Tensor, "batch"]]:
    """Tokens drawn from the nucleus, and whether the slice was enough for that; where it was not, they mean nothing."""
    width = top.ids.shape[1]
    cumulated = top.weights.cumsum(1)
    last = (cumulated <= _point(top.total, top_p)).sum(1, keepdim=True)  # place of the token that crosses the threshold
    kept = cumulated.gather(1, last.clamp(max=width - 1))
    place = (cumulated <= _point(kept, uniforms[:, None])).sum(1, keepdim=True).clamp_(max=width - 1)
    # Equal logits have equal weights, so their order does not show in the sums; it decides only which of them has this
    # place: the n-th lowest id. If they are the slice's last ones, some of them may have been left outside.
    value = top.values.gather(1, place)
    equal = top.values == value
    nth = place - (top.values > value).sum(1, keepdim=True)
    members = torch.where(equal, top.ids, torch.iinfo(torch.int64).max).sort(1).values
    tokens = members.gather(1, nth.clamp_(max=width - 1))[:, 0]
    found = (last < width) & ((value > top.values[:, -1:]) | top.complete)
    # Rows without a distribution are not worth a second look.
    broken = ~top.values[:, 0].isfinite()
    return torch.where(broken, NO_TOKEN, tokens), found[:, 0] | broken


def _drawn_by_bins(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None,
) -> Int64[Tensor, "batch"]:
    """Tokens drawn from a nucleus of any width, row by row.

    Weights are summed in bins of 1/32 nat, and only the bins in which a threshold lies are sorted. Equal logits share a
    bin and bins follow the order of the logits, so the tokens are those that sorting everything gives, only sooner.
    """
    tokens = torch.empty_like(uniforms, dtype=torch.int64)
    for row in range(len(logits)):
        x = _adjusted(logits[row : row + 1], sampling, counts, slice(row, row + 1))[0]
        largest = x.amax(0, keepdim=True)
        bins = ((largest - x) * _BINS_PER_NAT).clamp_(max=_BINS - 1).long()
        weights = _weights(x, largest, len(x))
        upto = torch.zeros(_BINS, dtype=torch.int64, device=x.device).scatter_add_(0, bins, weights).cumsum(0)
        _, kept = _reached(_point(upto[-1], sampling.top_p), x, weights, bins, upto)
        tokens[row], _ = _reached(_point(kept, uniforms[row]), x, weights, bins, upto)
    return tokens


def _reached(
    amount: Int64[Tensor, ""],
    x: Float32[Tensor, "vocab"],
    weights: Int64[Tensor, "vocab"],
    bins: Int64[Tensor, "vocab"],
    upto: Int64[Tensor, "bins"],
) -> tuple[Int64[Tensor, ""], Int64[Tensor, ""]]:
    """The first token, in descending order, at which the cumulated weight exceeds the amount; and that weight.

    upto: the weight in each bin and all bins before it.
    """
    here = torch.searchsorted(upto, amount, right=True)
    ids = (bins == here).nonzero().flatten()
    ids = ids[x[ids].sort(descending=True, stable=True).indices]
    cumulated = weights[ids].cumsum(0)
    cumulated += upto[here] - cumulated[-1]
    place = torch.searchsorted(cumulated, amount, right=True)
    return ids[place], cumulated[place]
