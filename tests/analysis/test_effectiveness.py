"""Effectiveness and disruption against plain sums in float64, law 13, and the edges of probability."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steerlens as sl
from steerlens.analysis.effectiveness import divergence, entropy, ranks, shift_of_set, token_set

FINITE = st.floats(-60, 60)


@st.composite
def two_distributions(draw):
    """Log-probabilities of two distributions over the same few tokens, and a set that is neither empty nor all."""
    size = draw(st.integers(2, 9))
    rows = [draw(st.lists(FINITE, min_size=size, max_size=size)) for _ in range(2)]
    members = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size - 1))
    steered, base = torch.tensor(rows, dtype=torch.float64).log_softmax(-1)
    return steered, base, sorted(members)


def plain(steered: list[float], base: list[float], members: list[int]) -> dict[str, float]:
    """The definitions, term by term."""
    p_s, p_b = [math.exp(x) for x in steered], [math.exp(x) for x in base]
    parts = [members, [i for i in range(len(p_s)) if i not in members]]
    mass_s, mass_b = (
        [math.fsum(p_s[i] for i in part) for part in parts],
        [math.fsum(p_b[i] for i in part) for part in parts],
    )
    disruption = two_way = 0.0
    for part, s, b in zip(parts, mass_s, mass_b, strict=True):
        inner = math.fsum(p_s[i] / s * math.log((p_s[i] / s) / (p_b[i] / b)) for i in part)
        disruption += s * inner
        two_way += s * math.log(s / b)
    return {
        "effectiveness": math.log(mass_s[0]) - math.log(mass_b[0]),
        "disruption": disruption,
        "two_way": two_way,
        "kl": math.fsum(s * math.log(s / b) for s, b in zip(p_s, p_b, strict=True)),
    }


@given(two_distributions())
@settings(deadline=None)
def test_the_numbers_are_those_of_the_definitions(case) -> None:
    steered, base, members = case
    found = shift_of_set(steered, base, token_set(members, len(base)))
    for name, value in plain(steered.tolist(), base.tolist(), members).items():
        assert float(getattr(found, name)) == pytest.approx(value, abs=1e-9, rel=1e-9), name


@given(two_distributions())
@settings(deadline=None)
def test_law_13_divergence_is_disruption_plus_the_two_way_split(case) -> None:
    steered, base, members = case
    found = shift_of_set(steered, base, token_set(members, len(base)))
    torch.testing.assert_close(found.kl, found.disruption + found.two_way, atol=1e-10, rtol=1e-10)
    assert found.disruption >= 0
    assert found.two_way >= 0


@given(two_distributions())
@settings(deadline=None)
def test_the_complement_has_the_same_disruption(case) -> None:
    steered, base, members = case
    rest = [i for i in range(len(base)) if i not in members]
    one = shift_of_set(steered, base, token_set(members, len(base)))
    other = shift_of_set(steered, base, token_set(rest, len(base)))
    torch.testing.assert_close(one.disruption, other.disruption, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(one.two_way, other.two_way, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(
    ("steered_logit", "base_logit"), [(80.0, -80.0), (-80.0, 80.0), (-300.0, -320.0), (300.0, 320.0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_and_certain_sets_stay_finite(steered_logit: float, base_logit: float, dtype: torch.dtype) -> None:
    """P(S) of e^−300, below what a float32 holds, and P(¬S) likewise: logs are exact where 1 − P would be 0."""
    rows = [torch.tensor([logit, 0.0, 1.0], dtype=dtype).log_softmax(-1) for logit in (steered_logit, base_logit)]
    found = shift_of_set(*rows, token_set([0], 3))
    values = [found.effectiveness, found.disruption, found.two_way, found.kl]
    assert all(torch.isfinite(value) for value in values)
    rest = math.log(1 + math.e)  # logsumexp of the other two tokens
    expected = [x - (x if x > 50 else rest) for x in (steered_logit, base_logit)]
    assert float(found.effectiveness) == pytest.approx(expected[0] - expected[1], rel=1e-5, abs=1e-5)
    # Within S there is one token, and the others keep their proportions: nothing is disrupted.
    assert float(found.disruption) == pytest.approx(0.0, abs=1e-4)


def test_a_token_that_neither_allows_counts_nothing_and_one_that_only_the_base_forbids_is_infinite() -> None:
    never = float("-inf")
    base = torch.tensor([0.0, 1.0, 2.0, never], dtype=torch.float64).log_softmax(-1)
    steered = torch.tensor([1.0, 0.0, 2.0, never], dtype=torch.float64).log_softmax(-1)
    members = token_set([0, 3], 4)
    with_it, without = shift_of_set(steered, base, members), shift_of_set(steered[:3], base[:3], token_set([0], 3))
    torch.testing.assert_close(with_it.kl, without.kl)
    torch.testing.assert_close(with_it.disruption, without.disruption)
    allowed = torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64).log_softmax(-1)
    assert shift_of_set(allowed, base, members).kl == float("inf")


def test_equal_distributions_shift_nothing() -> None:
    row = torch.randn(7, 50).log_softmax(-1)
    found = shift_of_set(row, row, token_set([3, 4], 50))
    for value in (found.effectiveness, found.disruption, found.two_way, found.kl):
        assert torch.equal(value, torch.zeros(7))


def test_entropy_and_divergence_know_their_extremes() -> None:
    uniform = torch.zeros(8).log_softmax(-1)
    certain = torch.tensor([200.0] + [0.0] * 7).log_softmax(-1)
    assert float(entropy(uniform)) == pytest.approx(math.log(8))
    assert float(entropy(certain)) == pytest.approx(0.0, abs=1e-6)
    assert float(divergence(certain, uniform)) == pytest.approx(math.log(8))


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=9, max_size=9), min_size=1, max_size=4),
    st.integers(1, 9),
    st.randoms(),
)
@settings(deadline=None)
def test_ranks_count_what_is_likelier(values, width: int, random) -> None:
    """Few distinct values, so that ties are the rule."""
    table = torch.tensor(values, dtype=torch.float64)
    ids = torch.tensor([random.sample(range(9), width) for _ in values])
    expected = [
        [1 + sum(x > row[i] for x in row) for i in mine] for row, mine in zip(values, ids.tolist(), strict=True)
    ]
    assert ranks(table, ids).tolist() == expected


@pytest.mark.parametrize(
    ("ids", "words"),
    [([], "empty"), (range(6), "all 6 tokens"), ([2, 6], "token 6 is outside"), ([-1], "token -1 is outside")],
)
def test_sets_that_are_none_are_refused(ids, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        token_set(list(ids), 6)


def test_a_mask_of_nothing_or_of_another_vocabulary_is_refused() -> None:
    rows = torch.zeros(2, 6).log_softmax(-1)
    with pytest.raises(sl.SteerlensError, match="none or all"):
        shift_of_set(rows, rows, torch.zeros(6, dtype=torch.bool))
    with pytest.raises(sl.SteerlensError, match="over 5 tokens"):
        shift_of_set(rows, rows, token_set([1], 5))


def test_law_13_on_a_model(gpt2) -> None:
    """Both model classes, a set of many tokens, several layers."""
    prompt, ids = "I went up to my friend and said", list(range(100, 300))
    base = sl.next_token_logits(gpt2, prompt).double().log_softmax(-1)
    members = token_set(ids, base.shape[-1])
    for layer, vector in sl.actadd(gpt2, "Love", "Hate", layers="all").items():
        steered = sl.next_token_logits(gpt2, prompt, 5 * vector).double().log_softmax(-1)
        found = shift_of_set(steered, base, members)
        direct = torch.nn.functional.kl_div(base, steered, log_target=True, reduction="sum")
        torch.testing.assert_close(found.kl, direct, atol=1e-10, rtol=1e-8)
        torch.testing.assert_close(found.kl, found.disruption + found.two_way, atol=1e-10, rtol=1e-8)
        assert found.kl > 0, layer
