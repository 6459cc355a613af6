"""Effectiveness and disruption of a set of tokens S: how far steering moved S, and what it did to everything else.

The split of the authors of Activation Addition (arXiv 2308.10248, and their analysis code): with b the base and s the
steered next-token distribution,

    E = ln P_s(S) − ln P_b(S)
    D = P_s(S) · KL(s|S ‖ b|S) + P_s(¬S) · KL(s|¬S ‖ b|¬S)
    KL(s ‖ b) = D + KL(Bernoulli(P_s(S)) ‖ Bernoulli(P_b(S)))

All in nats. Pure functions of log-probabilities; nothing here knows models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError


@dataclass(frozen=True, eq=False)
class ShiftOfSet:
    """What steering did to a set of tokens and to the rest, one number per distribution (nats).

    Attributes:
        effectiveness: ln P_s(S) − ln P_b(S).
        disruption: divergence within S and within its complement, weighted by the steered probability of each.
        two_way: KL of the two-way split S against not S.
        kl: KL(steered ‖ base) of the whole distribution, summed by itself: law 13 says kl = disruption + two_way.
        logprob_base, logprob_steered: ln P_b(S), ln P_s(S).
    """

    effectiveness: Float[Tensor, "*cell"]
    disruption: Float[Tensor, "*cell"]
    two_way: Float[Tensor, "*cell"]
    kl: Float[Tensor, "*cell"]
    logprob_base: Float[Tensor, "*cell"]
    logprob_steered: Float[Tensor, "*cell"]


def token_set(
    ids: Sequence[int] | Int[Tensor, " some"], d_vocab: int, *, device: torch.device | str = "cpu"
) -> Bool[Tensor, " d_vocab"]:
    """The set as a mask over the vocabulary.

    Raises:
        SteerlensError: no ids, all of the vocabulary (nothing is left to compare with), or ids outside it.
    """
    chosen = torch.as_tensor(ids, dtype=torch.long)
    if chosen.numel() == 0:
        raise SteerlensError("the set of wanted tokens is empty; give at least one token")
    low, high = int(chosen.min()), int(chosen.max())
    if low < 0 or high >= d_vocab:
        raise SteerlensError(f"token {low if low < 0 else high} is outside the vocabulary; use 0 to {d_vocab - 1}")
    mask = torch.zeros(d_vocab, dtype=torch.bool)
    mask[chosen] = True
    if mask.all():
        raise SteerlensError(
            f"the set holds all {d_vocab} tokens of the vocabulary, whose probability is always 1; name fewer"
        )
    return mask.to(device)


def shift_of_set(
    steered: Float[Tensor, "*cell d_vocab"], base: Float[Tensor, "*cell d_vocab"], members: Bool[Tensor, " token"]
) -> ShiftOfSet:
    """Effectiveness, disruption and the two parts' KL for every pair of distributions.

    Safe where P(S) is tiny or almost 1: the complement is summed in log space by itself, never as 1 − P(S). A token of
    probability 0 under both counts nothing; one that only the base excludes makes the divergence infinite.

    Args:
        steered, base: log-probabilities (nats), normalised over the last axis.
        members: the set, as `token_set` makes it.

    Raises:
        SteerlensError: the mask names none or all of the tokens, or its length is not the vocabulary's.
    """
    if members.shape[0] != steered.shape[-1]:
        raise SteerlensError(f"the set is over {members.shape[0]} tokens, the distributions over {steered.shape[-1]}")
    if not members.any() or members.all():
        raise SteerlensError("the set holds none or all of the tokens; give some of the vocabulary")
    inside, outside = members.nonzero()[:, 0], (~members).nonzero()[:, 0]
    disruption = two_way = torch.zeros_like(steered[..., 0])
    sums = []
    for part in (inside, outside):
        s, b = steered[..., part], base[..., part]
        log_s, log_b = s.logsumexp(-1), b.logsumexp(-1)
        # Σ p_s(i) · ln[ (p_s(i)/P_s) / (p_b(i)/P_b) ]: P_s · KL of the conditionals, with no division.
        conditional = (s - b) - (log_s - log_b)[..., None]
        disruption = disruption + _expectation(s, conditional).clamp_min(0.0)
        two_way = two_way + _expectation(log_s[..., None], (log_s - log_b)[..., None])
        sums.append((log_s, log_b))
    (log_s, log_b), _ = sums
    return ShiftOfSet(
        effectiveness=log_s - log_b,
        disruption=disruption,
        two_way=two_way.clamp_min(0.0),
        kl=divergence(steered, base),
        logprob_base=log_b,
        logprob_steered=log_s,
    )


def divergence(steered: Float[Tensor, "*cell d_vocab"], base: Float[Tensor, "*cell d_vocab"]) -> Float[Tensor, "*cell"]:
    """KL(steered ‖ base) in nats, from log-probabilities; never below 0."""
    return _expectation(steered, steered - base).clamp_min(0.0)


def entropy(logprobs: Float[Tensor, "*cell d_vocab"]) -> Float[Tensor, "*cell"]:
    """Entropy in nats, from log-probabilities."""
    return -_expectation(logprobs, logprobs)


def ranks(logprobs: Float[Tensor, "cells d_vocab"], ids: Int[Tensor, "cells token"]) -> Int[Tensor, "cells token"]:
    """The rank of each token in its distribution: 1 for the likeliest, equals share the better rank."""
    ordered, order = logprobs.gather(1, ids).sort(1)
    # How many of the few tokens each token of the vocabulary beats; one search instead of a pass for every token.
    beaten = torch.searchsorted(ordered, logprobs.contiguous())
    width = ids.shape[1] + 1
    rows = torch.arange(len(ids), device=ids.device)[:, None] * width
    counts = torch.bincount(beaten.add_(rows).flatten(), minlength=len(ids) * width).view(len(ids), width)
    above = counts.flip(1).cumsum(1).flip(1)[:, 1:]
    return torch.empty_like(above).scatter_(1, order, above) + 1


def _expectation(
    logprobs: Float[Tensor, "*cell tokens"], values: Float[Tensor, "*cell tokens"]
) -> Float[Tensor, "*cell"]:
    """Σ exp(logprobs) · values, in which probability 0 counts nothing, be the value infinite or NaN.

    What is NaN itself has no probability, and counts: nothing finite is made of it.
    """
    p = logprobs.exp()
    return torch.where(p == 0, 0.0, p * values).sum(-1)
