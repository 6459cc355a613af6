"""Drawing from the nucleus: three searches for the same token.

The token is the inverse of the row's cumulative distribution, in descending order of likelihood and by token id among
equals, cut off at `top_p`. All searches count in whole numbers (see `whole_weights`), so they always agree exactly:

- by sorting the vocabulary, which never makes the host wait for the device;
- in the slice of the largest logits, if that holds the nucleus, which integer sums decide exactly;
- by bins, row by row on the CPU, for a nucleus of any width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from steerlens.engine.broken_rows import NO_TOKEN, refuse_broken, settled
from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.token_counts import TokenCounts
from steerlens.engine.whole_weights import (
    WeighedRows,
    adjusted,
    largest_weight,
    point,
    point_of,
    row_groups,
    sorted_nucleus,
    weighed_rows,
)

# Of the slice on the CPU. Taking 256 costs as much as drawing from bins (measured at GPT-2's size), and a nucleus of
# less than half of the probability rarely has more than 64 tokens.
_WIDTH = 64
_TABLE, _LARGE = 16, 1 << 14  # rows of the table, and the vocabulary from which it pays to make one (measured)
_BINS, _BINS_PER_NAT = 8192, 256.0  # reaches 32 nats below the maximum, and the last bin takes all the rest


def drawn_by_sorting(
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
    for rows in row_groups(logits):
        ordered, ids = adjusted(logits, sampling, counts, rows).sort(dim=1, descending=True, stable=True)
        cumulated, kept = sorted_nucleus(ordered, sampling.top_p)
        last = kept.sum(1, keepdim=True).sub_(1).clamp_(min=0)  # below 0 only in a broken row
        target = point(cumulated.gather(1, last), uniforms[rows, None])
        place = torch.searchsorted(cumulated, target, right=True).clamp_(max=ids.shape[1] - 1)
        tokens[rows] = ids.gather(1, place)[:, 0]
        largest[rows] = ordered[:, 0]
    return settled(tokens, largest)


def drawn_by_slice(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None,
) -> tuple[Int64[Tensor, "batch"], Bool[Tensor, "batch"]]:
    """Tokens drawn on a device from the nuclei that the slice holds, and which rows those are; ignore the others."""
    slices, thresholds = [], []
    for group in weighed_rows(logits, sampling, counts):
        slices.append(_top_slice(group, list(range(len(group.x))), width=256, vocab=logits.shape[1]))
        thresholds.append(point(group.weights.sum(1, keepdim=True), sampling.top_p))
    return _drawn_from_slice(_TopSlice.stacked(slices), torch.cat(thresholds), uniforms)


def drawn_by_slice_or_bins(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None,
) -> Int64[Tensor, "batch"]:
    """Tokens drawn from the nucleus on the CPU, each row in the way likely to be quickest.

    A row is weighed once, and its weights show whether the slice of the largest logits is worth taking.
    """
    vocab = logits.shape[1]
    width = min(_WIDTH, vocab)
    # The slice weighs at most its width times the largest weight. But probabilities fall off from the first token on,
    # and the more mass is wanted, the further. With normal and Zipf-like logits, hardly any slice that this test
    # rejects held the nucleus. It is a guess about time alone: the tokens are the same.
    share = 1.0 if width == vocab else 0.25 * math.sqrt(1 - sampling.top_p)
    promising = int(share * width * largest_weight(vocab))
    tokens, numbers = torch.empty_like(uniforms, dtype=torch.int64), uniforms.tolist()
    slices: list[_TopSlice] = []
    sliced: dict[int, int] = {}  # row: threshold
    for group in weighed_rows(logits, sampling, counts):
        first = group.rows.start
        refuse_broken(group.largest[:, 0], first_row=first)
        thresholds = [point_of(total, sampling.top_p) for total in group.weights.sum(1).tolist()]
        wide = list(range(len(thresholds)))
        likely = [row for row in wide if thresholds[row] <= promising]
        if likely:
            top = _top_slice(group, likely, width=width, vocab=vocab)
            weight = top.weights.sum(1).tolist()
            held = [place for place, row in enumerate(likely) if weight[place] > thresholds[row]]
            slices.append(top.only(held))
            sliced |= {first + likely[place]: thresholds[likely[place]] for place in held}
            wide = [row for row in wide if first + row not in sliced]
        if wide:
            drawn = _drawn_from_bins(group, wide, [thresholds[row] for row in wide], numbers[group.rows])
            tokens[[first + row for row in wide]] = torch.tensor(drawn, device="cpu")
    if sliced:
        rows, threshold = torch.tensor([list(sliced), list(sliced.values())], device="cpu")
        tokens[rows], found = _drawn_from_slice(_TopSlice.stacked(slices), threshold[:, None], uniforms[rows])
        missed = rows[~found]  # the slice ends among equals, and one of them is the token
        if len(missed):
            left = counts and counts.select(missed)
            tokens[missed] = drawn_by_bins(logits[missed], sampling, uniforms[missed], left)
    return tokens


def drawn_by_bins(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None,
) -> Int64[Tensor, "batch"]:
    """Tokens drawn from the nucleus on the CPU without trying the slice of the largest logits."""
    tokens, numbers = [], uniforms.tolist()
    for group in weighed_rows(logits, sampling, counts):
        refuse_broken(group.largest[:, 0], first_row=group.rows.start)
        thresholds = [point_of(total, sampling.top_p) for total in group.weights.sum(1).tolist()]
        tokens += _drawn_from_bins(group, list(range(len(thresholds))), thresholds, numbers[group.rows])
    return torch.tensor(tokens, device="cpu")


@dataclass(frozen=True)
class _TopSlice:
    """The largest logits of each row in descending order, ties in any order, with ids and weights.

    complete: whether that is the whole vocabulary.
    """

    values: Float32[Tensor, "batch width"]
    ids: Int64[Tensor, "batch width"]
    weights: Int64[Tensor, "batch width"]
    complete: bool

    def only(self, rows: list[int]) -> _TopSlice:
        """The slices of these rows."""
        values, ids, weights = (_only(table, rows) for table in (self.values, self.ids, self.weights))
        return _TopSlice(values, ids, weights, self.complete)

    @classmethod
    def stacked(cls, parts: list[_TopSlice]) -> _TopSlice:
        """All rows of all parts."""
        values, ids, weights = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("values", "ids", "weights")
        )
        return cls(values, ids, weights, parts[0].complete)


def _only(table: Tensor, rows: list[int]) -> Tensor:
    """These rows of the table, in ascending order; no copy if they are all."""
    if len(rows) == len(table):
        return table
    # `table[rows]` would go from element to element.
    return table.index_select(0, torch.tensor(rows, dtype=torch.int64, device=table.device))


def _top_slice(group: WeighedRows, rows: list[int], *, width: int, vocab: int) -> _TopSlice:
    """The slice of these rows of the group."""
    x, weights = _only(group.x, rows), _only(group.weights, rows)
    values, ids = _topk(x, min(width, vocab))
    return _TopSlice(values, ids, weights.gather(1, ids), complete=width >= vocab)


def _topk(
    x: Float32[Tensor, "rows vocab"], width: int
) -> tuple[Float32[Tensor, "rows width"], Int64[Tensor, "rows width"]]:
    """The largest of each row in descending order, ties in any order, and their ids.

    If a row is laid out as a table, its `width` largest are in the `width` columns with the largest maxima. So on the
    CPU, where PyTorch puts every element into a queue, most of them need not be queued.
    """
    columns, rest = divmod(x.shape[1], _TABLE)
    if x.device.type != "cpu" or rest or x.shape[1] < _LARGE:
        values, ids = x.topk(width, dim=1)
        return values, ids
    table = x.unflatten(1, (_TABLE, columns))
    best = table.amax(1).topk(width, dim=1, sorted=False).indices
    values, places = table.gather(2, best[:, None].expand(-1, _TABLE, -1)).flatten(1).topk(width, dim=1)
    return values, best.gather(1, places % width) + places // width * columns


def _drawn_from_slice(
    top: _TopSlice, threshold: Int64[Tensor, "batch 1"], uniforms: Float64[Tensor, "batch"]
) -> tuple[Int64[Tensor, "batch"], Bool[Tensor, "batch"]]:
    """Tokens drawn from the nucleus, and whether the slice was large enough; ignore the tokens where it was not.

    threshold: the token that brings the cumulative weight above this is the last of the nucleus.
    """
    width = top.ids.shape[1]
    cumulated = top.weights.cumsum(1)
    last = (cumulated <= threshold).sum(1, keepdim=True)  # position of the token that crosses the threshold
    kept = cumulated.gather(1, last.clamp(max=width - 1))
    place = (cumulated <= point(kept, uniforms[:, None])).sum(1, keepdim=True).clamp_(max=width - 1)
    # Equal logits have equal weights, so their order does not show in the sums; it decides only which of them has this
    # place: the n-th lowest id. If they are the slice's last ones, some of them may have been left outside.
    value = top.values.gather(1, place)
    equal = top.values == value
    nth = place - (top.values > value).sum(1, keepdim=True)
    members = torch.where(equal, top.ids, torch.iinfo(torch.int64).max).sort(1).values
    tokens = members.gather(1, nth.clamp_(max=width - 1))[:, 0]
    found = (last < width) & ((value > top.values[:, -1:]) | top.complete)
    # Rows without a distribution need no second attempt.
    broken = ~top.values[:, 0].isfinite()
    return torch.where(broken, NO_TOKEN, tokens), found[:, 0] | broken


def _drawn_from_bins(group: WeighedRows, rows: list[int], thresholds: list[int], uniforms: list[float]) -> list[int]:
    """Tokens drawn from nuclei of any width, for these rows of the group.

    thresholds: of these rows; the token that brings the cumulative weight above this is the last of the nucleus.
    uniforms: of all rows of the group.

    Weights are summed in bins of 1/256 nat, and only the bins in which a threshold lies are sorted. Equal logits share
    a bin and bins follow the order of the logits, so the tokens are those that sorting everything gives, only sooner.
    """
    x, largest, weights = (_only(table, rows) for table in (group.x, group.largest, group.weights))
    bins = (largest - x).mul_(_BINS_PER_NAT).clamp_(max=_BINS - 1).long()
    empty = torch.zeros(len(rows), _BINS, dtype=torch.int64, device="cpu")
    upto = empty.scatter_add_(1, bins, weights).cumsum(1)
    tokens = []
    # Within one row NumPy compares and collects in a third of PyTorch's time, and the numbers are on the host already.
    for row, threshold, *line in zip(rows, thresholds, *(t.numpy() for t in (x, weights, bins, upto)), strict=True):
        _, kept = _reached(threshold, *line)
        token, _ = _reached(point_of(kept, uniforms[row]), *line)
        tokens.append(token)
    return tokens


def _reached(
    amount: int,
    x: Float32[np.ndarray, "vocab"],
    weights: Int64[np.ndarray, "vocab"],
    bins: Int64[np.ndarray, "vocab"],
    upto: Int64[np.ndarray, "bins"],
) -> tuple[int, int]:
    """The first token, in descending order, at which the cumulated weight exceeds the amount; and that weight.

    upto: the weight in each bin and all bins before it.
    """
    here = upto.searchsorted(amount, side="right")
    ids = (bins == here).nonzero()[0]
    ids = ids[(-x[ids]).argsort(kind="stable")]
    cumulated = weights[ids].cumsum()
    cumulated += upto[here] - cumulated[-1]
    place = cumulated.searchsorted(amount, side="right")
    return int(ids[place]), int(cumulated[place])
