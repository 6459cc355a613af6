"""Probabilities as whole numbers, so that a row's result depends on that row alone.

A floating-point sum depends on the order of addition, and kernels choose that order by the shape of the batch; a row
could then end up on the other side of a threshold because of its neighbours. So weights are turned into integers,
`floor(exp(logit - max) * 2**bits)`, at once, and everything after (totals, cumulative sums, thresholds) is integer
addition, whose order does not matter; maxima and sorting are exact anyway. `bits` is as large as int64 allows for the
vocabulary (46 for GPT-2's), finer than the float32 exponentials themselves. A token less than `2**-bits` times as
likely as the most likely one is never drawn. Where the cumulative probability equals `top_p` to within float32 rounding
(about 1e-7), the side is fixed but arbitrary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.token_counts import TokenCounts

# Elements: 1 MB of float32 logits stays in the cache, and spreads the fixed cost of each of some forty operations.
# (Measured: 2**16 takes 1.4 times as long at GPT-2's size, where it is one row; 2**19 is no better.)
_GROUP = 1 << 18
_ELEMENTS_AT_ONCE = 1 << 26  # full-vocabulary work on a device is done in groups of rows: about 3 GB of scratch
_ALIGNED = 16  # elements: 64 bytes of float32, as wide as a vector register and where every new tensor begins


def row_groups(logits: Float[Tensor, "batch vocab"]) -> list[slice]:
    """Rows to work on at a time. One on the CPU: it stays in the cache, and every kernel sees the same shape in every
    batch (a kernel may use other code for the last few elements, which do not fill a vector register)."""
    size = 1 if logits.device.type == "cpu" else max(1, _ELEMENTS_AT_ONCE // logits.shape[1])
    return [slice(start, min(start + size, len(logits))) for start in range(0, len(logits), size)]


def adjusted(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    counts: TokenCounts | None,
    rows: slice,
    *,
    out: Float32[Tensor, "rows vocab"] | None = None,
) -> Float32[Tensor, "rows vocab"]:
    """A copy of these rows of the logits (in `out`) in float32 after temperature, penalty and top_k.

    logits and counts are those of the whole batch.
    """
    x = logits[rows].to(torch.float32, copy=True) if out is None else out.copy_(logits[rows])
    if sampling.temperature != 1:
        x /= sampling.temperature
    if sampling.needs_counts and counts is not None:
        tokens, times = counts.tokens[rows], counts.times[rows]
        x.scatter_(1, tokens, x.gather(1, tokens) - times.to(torch.float32) * sampling.frequency_penalty)
    if sampling.top_k is not None and sampling.top_k < x.shape[1]:
        x.masked_fill_(x < x.topk(sampling.top_k, dim=1).values[:, -1:], -math.inf)
    return x


def largest_weight(vocab: int) -> int:
    """The weight of a row's most likely token, `2**bits`: the sum over a vocabulary of this size is at most 2**62."""
    return 1 << (62 - (vocab - 1).bit_length())


def weights(
    x: Float32[Tensor, "rows vocab"], largest: Float32[Tensor, "rows 1"], vocab: int
) -> Int64[Tensor, "rows vocab"]:
    """Whole numbers proportional to the probabilities."""
    return (x - largest).exp_().mul_(float(largest_weight(vocab))).long()


def point(total: Int64[Tensor, "..."], fraction: float | Float64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """The whole number in [0, total) at this fraction of it; it selects the first token to bring the sum above it."""
    return torch.minimum((total.double() * fraction).long(), total - 1)  # near 1 the product is rounded up to the total


def point_of(total: int, fraction: float) -> int:
    """`point` for one number that is already on the host."""
    return min(int(total * fraction), total - 1)


def sorted_nucleus(
    ordered: Float32[Tensor, "rows vocab"], top_p: float
) -> tuple[Int64[Tensor, "rows vocab"], Bool[Tensor, "rows vocab"]]:
    """Cumulative weights of a descending row, and which of its tokens are kept."""
    weighed = weights(ordered, ordered[:, :1], ordered.shape[1])
    cumulated = weighed.cumsum(1)
    return cumulated, cumulated - weighed <= point(cumulated[:, -1:], top_p)


@dataclass(frozen=True)
class WeighedRows:
    """Some rows of the batch: the adjusted logits, the largest of each row, and the weights.

    The vocabulary may be followed by padding: logits of -inf, which weigh 0.
    """

    rows: slice
    x: Float32[Tensor, "rows padded"]
    largest: Float32[Tensor, "rows 1"]
    weights: Int64[Tensor, "rows padded"]


def weighed_rows(
    logits: Float[Tensor, "batch vocab"], sampling: Sampling, counts: TokenCounts | None
) -> Iterator[WeighedRows]:
    """All rows of the batch in turn, some at a time. On the CPU, each group overwrites the last."""
    if logits.device.type == "cpu":
        yield from _weighed_in_place(logits, sampling, counts)
    else:
        yield from _weighed_together(logits, sampling, counts)


def _weighed_in_place(
    logits: Float[Tensor, "batch vocab"], sampling: Sampling, counts: TokenCounts | None
) -> Iterator[WeighedRows]:
    """For the CPU: in memory that stays in the cache, with the exponentials computed row by row.

    What is done to several rows at once (quotients, differences, products, maxima, whole numbers) is exact or correctly
    rounded, whatever the shape. Exponentials are not, so their kernel always sees one row at an aligned address (see
    `row_groups` for the reason). Threads get equal numbers of rows: sorting and summing work row by row.
    """
    batch, vocab = logits.shape
    threads = torch.get_num_threads()
    size = min(batch, max(threads, _GROUP // vocab // threads * threads))
    padded = -(-vocab // _ALIGNED) * _ALIGNED
    x = torch.full((size, padded), -math.inf, dtype=torch.float32, device="cpu")
    scratch, weighed = torch.empty_like(x), torch.empty_like(x, dtype=torch.int64)
    for start in range(0, batch, size):
        rows = slice(start, min(start + size, batch))
        if rows.stop - start < size:
            x, scratch, weighed = (table[: rows.stop - start] for table in (x, scratch, weighed))
        adjusted(logits, sampling, counts, rows, out=x[:, :vocab])
        largest = x.amax(1, keepdim=True)
        torch.sub(x, largest, out=scratch)
        for line in scratch:
            line.exp_()
        weighed.copy_(scratch.mul_(float(largest_weight(vocab))))
        yield WeighedRows(rows, x, largest, weighed)


def _weighed_together(
    logits: Float[Tensor, "batch vocab"], sampling: Sampling, counts: TokenCounts | None
) -> Iterator[WeighedRows]:
    """For accelerators, whose elementwise kernels treat all elements alike: many rows at a time."""
    for rows in row_groups(logits):
        x = adjusted(logits, sampling, counts, rows)
        largest = x.amax(1, keepdim=True)
        yield WeighedRows(rows, x, largest, weights(x, largest, x.shape[1]))
