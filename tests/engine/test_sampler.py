"""The sampler against its formula, and against everything that must not matter to a row."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaxtyping import config
from torch import Tensor

from steerlens.engine import nucleus
from steerlens.engine.random_streams import row_keys, uniforms
from steerlens.engine.sampler import likely_tokens, next_tokens, sampling_log_probs
from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.token_counts import TokenCounts
from steerlens.errors import SteerlensError
from tests.random_rows import chi_square_z, gaussian, stream

PLAIN = Sampling(top_p=1.0, frequency_penalty=0.0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plain_rule(
    row: list[float], sampling: Sampling, prompt: list[int] = ()
) -> tuple[list[int], dict[int, float], float]:
    """The formula in plain Python: kept tokens in order, their probabilities, distance to the next decision."""
    adjusted = [x / sampling.temperature - sampling.frequency_penalty * prompt.count(i) for i, x in enumerate(row)]
    order = sorted((i for i, x in enumerate(adjusted) if x > -math.inf), key=lambda i: (-adjusted[i], i))
    # Two that are equal in float32 may not be in float64, and the other way round: then their order is open.
    steps = [adjusted[i] - adjusted[j] for i, j in itertools.pairwise(order)]
    margin = min([step for step in steps if step > 0], default=math.inf)
    if sampling.top_k is not None and sampling.top_k < len(order):
        kth = adjusted[order[sampling.top_k - 1]]
        gaps = [abs(adjusted[i] - kth) for i in order if adjusted[i] != kth]
        margin = min([margin, *gaps])
        order = [i for i in order if adjusted[i] >= kth]
    mass = [math.exp(adjusted[i] - adjusted[order[0]]) for i in order]
    total = math.fsum(mass)
    if sampling.top_p < 1:
        before = [math.fsum(mass[:j]) / total for j in range(len(order) + 1)]
        margin = min([margin, *(abs(b - sampling.top_p) for b in before)])
        order = [i for i, b in zip(order, before, strict=False) if b <= sampling.top_p]
    total = math.fsum(mass[: len(order)])
    return order, {i: m / total for i, m in zip(order, mass, strict=False)}, margin


LOGIT = st.one_of(
    st.integers(-3, 3).map(float),  # ties
    # On a grid: two logits nearer than float32 can tell apart behind the penalty are a tie there and none in float64.
    st.floats(-30, 30, width=32).map(lambda x: round(x * 1024) / 1024),
    st.just(-math.inf),
)
SAMPLING = st.builds(
    Sampling,
    temperature=st.sampled_from([1.0, 0.7, 2.5, 0.05]),
    top_k=st.one_of(st.none(), st.integers(1, 60)),
    top_p=st.one_of(st.just(1.0), st.just(0.3), st.floats(1e-6, 1.0)),
    frequency_penalty=st.sampled_from([0.0, 1.0, 0.37, 30.0, -0.5]),
)


@settings(max_examples=300, deadline=None)
@given(st.data(), SAMPLING)
def test_distribution_is_the_formula_and_the_draw_its_inverse(data: st.DataObject, sampling: Sampling) -> None:
    row = data.draw(st.lists(LOGIT, min_size=1, max_size=40))
    assume(max(row) > -math.inf)
    prompt = data.draw(st.lists(st.integers(0, len(row) - 1), max_size=6))
    order, expected, margin = plain_rule(row, sampling, prompt)
    assume(margin > 1e-5)
    logits = torch.tensor([row])
    counts = TokenCounts.of_prompts(torch.tensor([prompt], dtype=torch.int64).view(1, -1))

    log_probs = sampling_log_probs(logits, sampling, counts)
    assert log_probs.dtype == torch.float32
    assert set((log_probs[0] > -math.inf).nonzero().flatten().tolist()) == set(order)
    assert {i: log_probs[0, i].exp().item() for i in order} == pytest.approx(expected, rel=2e-5, abs=1e-9)

    if sampling.top_p == 1:
        order = sorted(order)
    upper = list(np.cumsum([expected[i] for i in order]))
    inner = [(low + high) / 2 for low, high in zip([0.0, *upper], upper, strict=False)]
    edges = [x + e for x in upper for e in (-1e-5, 1e-5)]
    for u in {*inner, *edges, data.draw(st.floats(0, 1, exclude_max=True))}:
        if 0 <= u < 1 and min(abs(u - x) for x in [0.0, *upper]) > 5e-6:
            token = next_tokens(logits, sampling, torch.tensor([u], dtype=torch.float64), counts)
            assert token.dtype == torch.int64
            assert token.item() == order[min(int(np.searchsorted(upper, u, side="right")), len(order) - 1)]
    for u in (0.0, 1 - 2.0**-53):
        assert next_tokens(logits, sampling, torch.tensor([u], dtype=torch.float64), counts).item() in order


@pytest.mark.parametrize(("top_p", "kept"), [(0.2, 1), (0.25, 2), (0.3, 2), (0.5, 3), (0.74, 3), (0.75, 4), (1.0, 4)])
def test_nucleus_keeps_the_token_that_crosses_and_one_more_when_it_is_met_exactly(top_p: float, kept: int) -> None:
    sampling, logits = Sampling(top_p=top_p, frequency_penalty=0), torch.zeros(1, 4)
    log_probs = sampling_log_probs(logits, sampling)
    assert (log_probs > -math.inf).tolist() == [[i < kept for i in range(4)]]
    assert log_probs[0, :kept].exp().tolist() == pytest.approx([1 / kept] * kept)
    for draw in (next_tokens, nucleus.drawn_by_sorting, nucleus.drawn_by_bins):
        found = [draw(logits, sampling, torch.tensor([j / 60], dtype=torch.float64), None).item() for j in range(60)]
        assert found == [j * kept // 60 for j in range(60)]


def test_top_k_keeps_ties_and_may_exceed_the_vocabulary() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    kept = [[False, True, True, True, True, False]]
    for k in (2, 3, 4):
        found = sampling_log_probs(logits, dataclasses.replace(PLAIN, top_k=k))
        assert (found > -math.inf).tolist() == kept
    for k in (6, 7, 1000):
        assert sampling_log_probs(logits, dataclasses.replace(PLAIN, top_k=k)).equal(sampling_log_probs(logits, PLAIN))
    both = sampling_log_probs(logits, Sampling(top_k=2, top_p=0.5, frequency_penalty=0))  # e / (e + 3) = .475
    assert (both > -math.inf).tolist() == [[False, True, True, False, False, False]]


def test_distribution_equals_transformer_lens(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_utils = pytest.importorskip("transformer_lens.utilities.logits_utils")
    theirs: list[Tensor] = []

    class Recorder:
        def __init__(self, logits: Tensor) -> None:
            theirs.append(logits.log_softmax(-1))

        def sample(self) -> Tensor:
            return theirs[-1].argmax(-1)

    monkeypatch.setattr(torch.distributions.categorical, "Categorical", Recorder)
    logits = gaussian(30, 2000)
    tokens = torch.randint(0, 2000, (30, 12), generator=torch.Generator().manual_seed(1))
    tokens[:, :8] = logits.topk(8).indices  # so that the penalty bites
    tokens[:, 9] = tokens[:, 0]
    counts = TokenCounts.of_prompts(tokens)
    for temperature in (1.0, 0.6):
        for penalty in (0.0, 1.0, 0.3):
            for top_k, top_p in ((None, 0.3), (None, 0.9), (None, None), (5, None), (10**6, None)):
                ours = sampling_log_probs(
                    logits,
                    Sampling(temperature=temperature, top_k=top_k, top_p=top_p or 1.0, frequency_penalty=penalty),
                    counts,
                )
                logits_utils.sample_logits(
                    logits, top_k=top_k, top_p=top_p, temperature=temperature, freq_penalty=penalty, tokens=tokens
                )
                assert (ours > -math.inf).equal(theirs[-1] > -math.inf)
                torch.testing.assert_close(ours.exp(), theirs[-1].exp(), rtol=1e-5, atol=1e-7)
    assert next_tokens(logits, Sampling(temperature=0)).equal(logits_utils.sample_logits(logits, temperature=0.0))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        PLAIN,
        Sampling(top_p=0.8),
        Sampling(top_k=5, top_p=1.0),
        Sampling(temperature=1.7, top_k=12, top_p=0.9),
    ],
    ids=str,
)
def test_frequencies_match_the_distribution(sampling: Sampling) -> None:
    n = 6_000
    logits = gaussian(1, 40, scale=1.0)
    counts = TokenCounts.of_prompts(logits.topk(3).indices)
    drawn = next_tokens(logits.expand(n, -1), sampling, stream(n), counts.repeat(n)).bincount(minlength=40)
    expected = sampling_log_probs(logits, sampling, counts).exp()[0].double() * n
    kept = expected > 0
    assert kept.sum() >= 3
    assert drawn[~kept].sum() == 0
    assert abs(chi_square_z(drawn[kept], expected[kept])) < 4


def test_greedy_takes_the_first_largest_raw_logit_and_looks_at_nothing_else() -> None:
    logits = torch.tensor([[0.0, 5.0, 5.0, 1.0], [3.0, -1.0, 3.0, 3.0], [-math.inf, -2.0, -math.inf, -3.0]])
    greedy = Sampling(temperature=0, top_k=1, top_p=0.1, frequency_penalty=100.0)
    assert next_tokens(logits, greedy).tolist() == [1, 0, 1]
    many = TokenCounts.of_prompts(torch.tensor([[1] * 5, [0] * 5, [1] * 5]))
    assert next_tokens(logits, greedy, stream(3), many).tolist() == [1, 0, 1]
    assert sampling_log_probs(logits, greedy, many).exp().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    wide = gaussian(20, 3000).bfloat16()  # bfloat16 makes ties
    first = [row.tolist().index(max(row.tolist())) for row in wide]
    assert next_tokens(wide, greedy).tolist() == first


def test_penalty_counts_bos_and_every_repetition_but_no_padding() -> None:
    logits = torch.zeros(1, 4)
    tokens, mask = torch.tensor([[3, 3, 3, 1, 2, 2]]), torch.tensor([[0, 0, 1, 1, 1, 1]])  # padding id 3 = BOS id 3
    counts = TokenCounts.of_prompts(tokens, mask)
    found = sampling_log_probs(logits, Sampling(top_p=1.0, frequency_penalty=0.5), counts)
    assert (found - found[:, :1])[0].tolist() == pytest.approx([0.0, -0.5, -1.0, -0.5])
    halved = sampling_log_probs(logits, Sampling(temperature=2.0, top_p=1.0, frequency_penalty=0.5), counts)
    assert halved.equal(found)  # the penalty comes after the temperature


@pytest.mark.parametrize("d_vocab", [1, 3, 17, 64, 255, 1000, 8191, 50257])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.97), Sampling(top_p=1.0)], ids=str)
def test_a_row_does_not_see_its_batch(d_vocab: int, sampling: Sampling, threads: None) -> None:
    batch = 37 if d_vocab < 10_000 else 11
    logits = gaussian(batch, d_vocab, scale=2.0)
    logits[::5] *= 0.1  # wide nuclei, which take the other path
    prompts = torch.randint(0, d_vocab, (batch, 7), generator=torch.Generator().manual_seed(3))
    u, counts = stream(batch), TokenCounts.of_prompts(prompts)
    expected = next_tokens(logits, sampling, u, counts)
    generator = torch.Generator().manual_seed(4)
    for size in (1, 2, 3, 8, batch):
        rows = torch.randperm(batch, generator=generator)[:size]
        part = counts.select(rows)
        assert next_tokens(logits[rows], sampling, u[rows], part).equal(expected[rows])
    # neither its place in memory
    strided = torch.zeros(batch, 3, d_vocab + 5)
    strided[:, 1, 2:-3] = logits
    assert next_tokens(strided[:, 1, 2:-3], sampling, u, counts).equal(expected)
    assert next_tokens(logits.T.contiguous().T, sampling, u, counts).equal(expected)
    for n in (2, 3):
        torch.set_num_threads(n)
        assert next_tokens(logits, sampling, u, counts).equal(expected)


def test_neighbours_and_their_padding_do_not_matter() -> None:
    logits, u = gaussian(2, 500), stream(2)
    alone = next_tokens(logits[:1], Sampling(), u[:1], TokenCounts.of_prompts(torch.tensor([[9, 4, 4]])))
    tokens = torch.tensor([[0, 0, 0, 9, 4, 4], [0, 1, 2, 3, 4, 5]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    together = next_tokens(logits, Sampling(), u, TokenCounts.of_prompts(tokens, mask))
    assert together[:1].equal(alone)


def test_the_callers_random_state_and_tensors_are_untouched() -> None:
    logits, tokens = gaussian(5, 600), torch.randint(0, 600, (5, 4), generator=torch.Generator().manual_seed(0))
    copies = logits.clone(), tokens.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    counts, keys = TokenCounts.of_prompts(tokens), row_keys(3, tokens.tolist(), 1)[:, 0]
    for step, sampling in enumerate([Sampling(), PLAIN, Sampling(temperature=0), Sampling(temperature=0.5, top_k=3)]):
        new = next_tokens(logits, sampling, uniforms(keys, step), counts)
        sampling_log_probs(logits, sampling, counts)
        counts = counts.add(new)
    assert logits.equal(copies[0])
    assert tokens.equal(copies[1])
    assert torch.get_rng_state().equal(states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    if cuda:
        assert all(a.equal(b) for a, b in zip(cuda, torch.cuda.get_rng_state_all(), strict=True))


def test_the_global_seed_does_not_matter() -> None:
    logits, u = gaussian(50, 600), stream(50)
    torch.manual_seed(1)
    first = next_tokens(logits, PLAIN, u)
    torch.manual_seed(2)
    assert next_tokens(logits, PLAIN, u).equal(first)
    assert len(Counter(first.tolist())) > 10


def test_half_precision_is_lifted_before_anything_else() -> None:
    counts, u = TokenCounts.of_prompts(torch.randint(0, 900, (16, 5))), stream(16)
    for dtype in (torch.bfloat16, torch.float16):
        logits = gaussian(16, 900).to(dtype)
        for sampling in (Sampling(temperature=0.7), Sampling(temperature=0.7, top_p=1.0)):
            assert next_tokens(logits, sampling, u, counts).equal(next_tokens(logits.float(), sampling, u, counts))


def test_logits_that_require_gradients_are_welcome() -> None:
    logits, u = gaussian(4, 300), stream(4)
    found = next_tokens(logits.clone().requires_grad_(), Sampling(frequency_penalty=0), u)
    assert found.equal(next_tokens(logits, Sampling(frequency_penalty=0), u))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: shapes in signatures are not checked, and bad ones reach the function's own messages.
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    logits, u = gaussian(3, 10), stream(3)
    counts = TokenCounts.of_prompts(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(SteerlensError, match=r"frequency_penalty is 1\.0 but counts are not given"):
        next_tokens(logits, Sampling(), u)
    with pytest.raises(SteerlensError, match="counts have 2 rows but logits have 3"):
        next_tokens(logits, Sampling(), u, counts.select(torch.tensor([0, 1])))
    with pytest.raises(SteerlensError, match=r"^uniforms: none, for 3 rows"):
        next_tokens(logits, PLAIN)
    with pytest.raises(SteerlensError, match=r"uniforms: shape \[2\], for 3 rows"):
        next_tokens(logits, PLAIN, u[:2])
    with pytest.raises(SteerlensError, match="give floating-point"):
        next_tokens(logits[:, :0], PLAIN, u)
    with pytest.raises(SteerlensError, match="give floating-point"):
        next_tokens(logits.long(), PLAIN, u)


def test_no_rows_no_tokens() -> None:
    counts = TokenCounts.of_prompts(torch.zeros(0, 3, dtype=torch.int64))
    for sampling in (Sampling(), PLAIN, Sampling(temperature=0)):
        found = next_tokens(torch.zeros(0, 9), sampling, stream(0), counts)
        assert found.shape == (0,)
        assert found.dtype == torch.int64
        assert sampling_log_probs(torch.zeros(0, 9), sampling, counts).shape == (0, 9)
        assert likely_tokens(torch.zeros(0, 9), sampling, stream(0), counts)[1].shape == (0,)
    assert counts.add(torch.zeros(0, dtype=torch.int64)).tokens.shape == (0, 4)


@pytest.mark.parametrize("sampling", [Sampling(), PLAIN, Sampling(temperature=0)], ids=str)
def test_on_the_cpu_nothing_needs_guessing(sampling: Sampling) -> None:
    logits, u = gaussian(9, 5000, scale=1.0), stream(9)
    counts = TokenCounts.of_prompts(logits.topk(3).indices)
    tokens, certain = likely_tokens(logits, sampling, u, counts)
    assert certain.all()
    assert tokens.equal(next_tokens(logits, sampling, u, counts))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_the_same_without_waiting() -> None:
    keys = row_keys(0, [[1, 2]], 300)[0]
    assert uniforms(keys.cuda(), 5).cpu().equal(uniforms(keys, 5))
    logits = gaussian(300, 50257).cuda()
    logits[::7] *= 0.1
    counts = TokenCounts.of_prompts(logits.topk(6).indices)
    u = uniforms(keys.cuda(), 5)
    for sampling in (Sampling(), PLAIN, Sampling(top_k=50, top_p=0.9), Sampling(temperature=0)):
        next_tokens(logits, sampling, u, counts)
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = next_tokens(logits, sampling, u, counts)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        tokens, certain = likely_tokens(logits, sampling, u, counts)
        assert tokens[certain].equal(found[certain])
        assert certain.float().mean() > 0.8
        rows = torch.tensor([5, 299, 0, 14], device="cuda")
        for size in (1, 4):
            part = rows[:size]
            assert next_tokens(logits[part], sampling, u[part], counts.select(part)).equal(found[part])
        same = next_tokens(logits.cpu(), sampling, u.cpu(), counts.to("cpu")) == found.cpu()
        assert same.float().mean() > 0.98  # exponentials differ in the last bit between devices
