"""Next-token sampling whose result for a row depends on that row alone.

Tensors in, token ids out; no model, no tokenizer, no generator state: the random numbers come in as an argument (see
`random_streams`), and so do the counts of each token in a row (`TokenCounts`).

**The distribution** (that of `transformer_lens.utils.sample_logits`; `Sampling` lists the differences). Logits are
lifted to float32 and divided by the temperature; a token's logit loses `frequency_penalty` for each time the token
occurs in the row; `top_k` keeps the k largest, and any that equal the k-th; `top_p` goes down from the most likely
token and keeps every token before which the cumulative probability does not exceed `top_p`, so the token that crosses
the threshold is kept. What is left is renormalised. Equal logits are ordered by token id, lowest first.

Cumulative sums are exact, and thresholds whole numbers (see `whole_weights`): the token does not depend on the batch,
the threads or the search that is used. `-inf` means never; for rows without any distribution see `broken_rows`.

Apple's MPS has no float64; logits from there are processed on the CPU.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from steerlens.engine.broken_rows import NO_TOKEN, BrokenRow, refuse_broken, settled
from steerlens.engine.nucleus import drawn_by_slice, drawn_by_slice_or_bins, drawn_by_sorting
from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.token_counts import TokenCounts
from steerlens.engine.whole_weights import adjusted, point, row_groups, sorted_nucleus, weighed_rows
from steerlens.errors import SteerlensError


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
    for rows in row_groups(logits):
        x = adjusted(logits, sampling, counts, rows)
        refuse_broken(x.amax(1), first_row=rows.start)
        if sampling.top_p < 1:
            ordered, ids = x.sort(dim=1, descending=True, stable=True)
            kept = torch.zeros_like(ids, dtype=torch.bool).scatter_(1, ids, sorted_nucleus(ordered, sampling.top_p)[1])
            x = x.masked_fill_(~kept, -math.inf)
        result[rows] = x.log_softmax(1)
    return result


@torch.no_grad()
def next_tokens(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"] | None = None,
    counts: TokenCounts | None = None,
) -> Int64[Tensor, "batch"]:
    """The next token of every row: the inverse of the row's cumulative distribution, at its uniform number.

    Tokens are cumulated in descending order of likelihood (by token id when top_p is 1, which needs no sorting). The
    logits are not modified. uniforms and counts may be left out where they are not used (greedy; penalty 0).

    On the CPU the nucleus is looked for among the largest logits; rows where these do not hold all of it, which integer
    sums decide exactly, are drawn from the whole vocabulary. Elsewhere, finding out whether there is such a row would
    make the host wait for the device at every token; so the vocabulary is sorted for all rows, which never waits but is
    slow: see `likely_tokens`. The tokens are the same.
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
    if logits.device.type == "cpu":
        return drawn_by_slice_or_bins(logits, sampling, uniforms, counts)
    return drawn_by_sorting(logits, sampling, uniforms, counts)


def next_tokens_where_any(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None = None,
) -> Int64[Tensor, "batch"]:
    """`next_tokens`, with `NO_TOKEN` for rows that hold NaN or infinity: one broken row is not the others' loss."""
    try:
        return next_tokens(logits, sampling, uniforms, counts)
    except BrokenRow:
        broken = ~logits.amax(1).isfinite()
        if not bool(broken.any()):  # the logits are sound: it is the temperature
            raise
        tokens = next_tokens(logits.masked_fill(broken[:, None], 0.0), sampling, uniforms, counts)
        return torch.where(broken, NO_TOKEN, tokens)


def may_be_guessed(sampling: Sampling) -> bool:
    """Whether `likely_tokens` is quicker than `next_tokens` on a device: where that would sort the vocabulary."""
    return not sampling.greedy and sampling.top_p < 1


@torch.no_grad()
def likely_tokens(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None = None,
) -> tuple[Int64[Tensor, "batch"], Bool[Tensor, "batch"]]:
    """Tokens drawn from the largest logits alone, and which of them are certainly those of `next_tokens`.

    The host waits for nothing, and nothing is sorted; ignore the tokens that are not certain.
    """
    if not may_be_guessed(sampling) or logits.device.type in ("cpu", "mps") or len(logits) == 0:
        tokens = next_tokens(logits, sampling, uniforms, counts)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    _check(logits, sampling, counts)
    return drawn_by_slice(logits, sampling, uniforms, counts)


def _check(logits: Tensor, sampling: Sampling, counts: TokenCounts | None) -> None:
    if logits.ndim != 2 or logits.shape[1] == 0 or not logits.is_floating_point():
        raise SteerlensError(f"logits are {logits.dtype} {list(logits.shape)}; give floating-point [batch vocab]")
    if sampling.needs_counts and counts is None:
        given = f"frequency_penalty is {sampling.frequency_penalty} but counts are not given"
        raise SteerlensError(f"{given}; give TokenCounts.of_prompts(…), or set the penalty to 0")
    if sampling.needs_counts and counts is not None and len(counts.tokens) != len(logits):
        given = f"counts have {len(counts.tokens)} rows but logits have {len(logits)}"
        raise SteerlensError(f"{given}; select the same rows of both")


def _largest_logit(logits: Float[Tensor, "batch vocab"]) -> Int64[Tensor, "batch"]:
    tokens = logits.argmax(1)  # the first of several equal ones, as documented
    return settled(tokens, logits.gather(1, tokens[:, None])[:, 0])


def _drawn_by_id(
    logits: Float[Tensor, "batch vocab"],
    sampling: Sampling,
    uniforms: Float64[Tensor, "batch"],
    counts: TokenCounts | None,
) -> Int64[Tensor, "batch"]:
    """Tokens drawn without a nucleus."""
    tokens, largest = torch.empty_like(uniforms, dtype=torch.int64), torch.empty_like(uniforms)
    for group in weighed_rows(logits, sampling, counts):
        cumulated = group.weights.cumsum_(1)
        target = point(cumulated[:, -1:], uniforms[group.rows, None])
        # A broken row may point past the end; it must not index into memory before it is settled.
        place = torch.searchsorted(cumulated, target, right=True).clamp_(max=logits.shape[1] - 1)
        tokens[group.rows], largest[group.rows] = place[:, 0], group.largest[:, 0]
    return settled(tokens, largest)
