"""The sampler against its formula, and against everything that must not matter to a row."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaxtyping import config
from torch import Tensor

from steerlens.engine import sampler
from steerlens.engine.sampler import Sampling, TokenCounts, next_tokens, row_keys, sampling_log_probs, uniforms
from steerlens.errors import SteerlensError

PLAIN = Sampling(top_p=1.0, frequency_penalty=0.0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shapes_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it: shapes in signatures are not checked, and bad ones reach the function's own messages."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


def gaussian(rows: int, d_vocab: int, *, scale: float = 3.0, seed: int = 0) -> Tensor:
    return torch.randn(rows, d_vocab, generator=torch.Generator().manual_seed(seed)) * scale


def stream(n: int, *, seed: int = 0, step: int = 0) -> Tensor:
    return uniforms(row_keys(seed, [[1, 2, 3]], n)[0], step)


def chi_square_z(observed: Tensor, expected: Tensor) -> float:
    """How many standard deviations Pearson's statistic lies from its mean (Wilson and Hilferty's cube root)."""
    degrees = len(observed) - 1
    statistic = ((observed.double() - expected) ** 2 / expected).sum().item()
    spread = 2 / (9 * degrees)
    return ((statistic / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def plain_rule(
    row: list[float], sampling: Sampling, prompt: list[int] = ()
) -> tuple[list[int], dict[int, float], float]:
    """The formula in plain Python: kept tokens in order, their probabilities, distance to the next decision."""
    adjusted = [x / sampling.temperature - sampling.frequency_penalty * prompt.count(i) for i, x in enumerate(row)]
    order = sorted((i for i, x in enumerate(adjusted) if x > -math.inf), key=lambda i: (-adjusted[i], i))
    margin = math.inf
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


# ----------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("seed", ["zero", 1.5, None])
def test_a_seed_is_a_whole_number(seed: object, shapes_unchecked: None) -> None:
    with pytest.raises(SteerlensError, match=re.escape(f"the seed must be a whole number, got {seed!r}")):
        row_keys(seed, [[1, 2]], 1)  # type: ignore[arg-type]


def test_defaults_are_the_papers() -> None:
    assert Sampling() == Sampling(temperature=1.0, top_k=None, top_p=0.3, frequency_penalty=1.0)
    assert not Sampling().greedy
    assert Sampling(temperature=0).greedy
    assert Sampling().needs_counts
    assert not Sampling(frequency_penalty=0).needs_counts
    assert not Sampling(temperature=0).needs_counts
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sampling().top_p = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("temperature", v) for v in (-0.1, math.inf, math.nan)],
        *[("top_k", v) for v in (0, -3, 2.5, True)],
        *[("top_p", v) for v in (0.0, -0.2, 1.01, math.nan)],
        *[("frequency_penalty", v) for v in (math.inf, -math.inf, math.nan)],
    ],
)
def test_bad_settings_are_refused_in_one_line(field: str, value: float) -> None:
    with pytest.raises(SteerlensError, match=f"^{field} is ") as caught:
        Sampling(**{field: value})
    assert "needs" in str(caught.value)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- random numbers


def test_uniforms_are_splitmix64() -> None:
    whole = (1 << 64) - 1

    def mixed(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & whole
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & whole
        return x ^ (x >> 31)

    keys = [0, 1, -1, 2**63 - 1, -(2**63), *row_keys(5, [[7, 8]], 20)[0].tolist()]
    for step in (0, 1, 39, 10**6, 2**40):
        expected = [(mixed((mixed(k & whole) + (step + 1) * 0x9E3779B97F4A7C15) & whole) >> 11) / 2**53 for k in keys]
        assert uniforms(torch.tensor(keys), step).tolist() == expected
        assert uniforms(torch.tensor(keys), torch.full((len(keys),), step)).tolist() == expected


def test_uniforms_of_a_row_do_not_see_the_batch() -> None:
    keys = row_keys(0, [[1], [2, 3]], 50).flatten()
    together = uniforms(keys, 7)
    assert together.dtype == torch.float64
    assert torch.cat([uniforms(key[None], 7) for key in keys]).equal(together)
    steps = torch.arange(len(keys))
    assert uniforms(keys, steps).tolist() == [uniforms(k[None], s).item() for s, k in enumerate(keys)]


@pytest.mark.parametrize("kind", ["hashed keys", "neighbouring keys", "steps of one key", "steps of key 0"])
def test_uniforms_are_uniform_and_independent(kind: str) -> None:
    n = 100_000
    if kind == "hashed keys":
        u = stream(n, step=3)
    elif kind == "neighbouring keys":
        u = uniforms(torch.arange(n), 3)
    else:
        key = row_keys(0, [[1, 2]], 1)[0] if kind == "steps of one key" else torch.zeros(1, dtype=torch.int64)
        u = uniforms(key.expand(n), torch.arange(n))
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert u.unique().numel() == n
    cells = (u * 1000).long()
    assert abs(chi_square_z(cells.bincount(minlength=1000), torch.full((1000,), n / 1000))) < 4
    for lag in (1, 2, 3, 16, 40):  # pairs fill the square evenly; this sees more than the correlation does
        pairs = (u[:-lag] * 20).long() * 20 + (u[lag:] * 20).long()
        assert abs(chi_square_z(pairs.bincount(minlength=400), torch.full((400,), (n - lag) / 400))) < 4
    bits = (u * 2**53).long()
    ones = torch.stack([(bits >> b & 1).sum() for b in range(53)])
    assert ((ones - n / 2).abs() < 5 * math.sqrt(n) / 2).all()


def test_streams_of_many_keys_over_many_steps_are_unrelated() -> None:
    keys = row_keys(0, [[1], [1, 2], [9] * 12], 100).flatten()
    table = torch.stack([uniforms(keys, step) for step in range(60)], 1)  # [300 60]
    for rows in (table, table.T):
        correlation = torch.corrcoef(rows)
        width = rows.shape[1]
        z = correlation[~torch.eye(len(rows), dtype=torch.bool)] * math.sqrt(width)
        assert abs(z.var().item() - 1) < 0.1
        assert z.abs().max() < 6
    assert abs(chi_square_z((table.flatten() * 100).long().bincount(minlength=100), torch.full((100,), 180.0))) < 4


def test_row_keys_are_pinned() -> None:
    """A change here changes every completion of every seed: it is a break of the format, not a detail."""
    assert row_keys(0, [[50256, 40, 5465]], 2).tolist() == PINNED_KEYS
    assert uniforms(row_keys(0, [[50256, 40, 5465]], 2)[0], 0).tolist() == PINNED_UNIFORMS


PINNED_KEYS = [[-4987402910539935457, -6871996594101510912]]
PINNED_UNIFORMS = [0.029586565288754696, 0.4832693257763555]


def test_row_keys_differ_with_seed_prompt_and_sample_only() -> None:
    prompts = [[1], [2], [1, 2], [2, 1], [1, 2, 0], [0, 1, 2], [], [0], [0, 0], [12], [258]]
    seeds = [0, 1, -1, 10, 2**64, -(2**80)]
    keys = torch.stack([row_keys(seed, prompts, 50) for seed in seeds])
    assert keys.unique().numel() == len(seeds) * len(prompts) * 50
    alone = torch.cat([row_keys(0, [prompt], 3) for prompt in reversed(prompts)]).flip(0)
    assert alone.equal(keys[0, :, :3])
    assert row_keys(0, [(1, 2)], 3).equal(row_keys(0, [torch.tensor([1, 2]).tolist()], 3))
    assert row_keys(0, [], 3).shape == (0, 3)
    assert row_keys(0, [[1]], 0).shape == (1, 0)
    with pytest.raises(SteerlensError, match="n_samples is -1"):
        row_keys(0, [[1]], -1)


# ------------------------------------------------------------------------------------------------------------- counts


@given(st.data())
def test_counts_equal_a_plain_count(data: st.DataObject) -> None:
    d_vocab = data.draw(st.integers(1, 6))
    token = st.integers(0, d_vocab - 1)
    rows = data.draw(st.lists(st.lists(token, max_size=5), min_size=1, max_size=4))
    width = max(map(len, rows)) + data.draw(st.integers(0, 2))
    pad = data.draw(token)
    left = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    padded = [
        [pad] * (width - len(r)) + r if side else r + [pad] * (width - len(r))
        for r, side in zip(rows, left, strict=True)
    ]
    mask = [
        [0] * (width - len(r)) + [1] * len(r) if side else [1] * len(r) + [0] * (width - len(r))
        for r, side in zip(rows, left, strict=True)
    ]
    shape = (len(rows), width)
    counts = TokenCounts.of_prompts(
        torch.tensor(padded, dtype=torch.int64).view(shape), torch.tensor(mask, dtype=torch.int64).view(shape)
    )

    def check(counts: TokenCounts, rows: list[list[int]]) -> None:
        expected = [[row.count(t) for t in range(d_vocab)] for row in rows]
        assert counts.dense(d_vocab).tolist() == expected
        # Slots of one token agree, or the result of writing them would depend on their order.
        for tokens, times, row in zip(counts.tokens.tolist(), counts.times.tolist(), expected, strict=True):
            assert times == [row[t] for t in tokens]

    check(counts, rows)
    for _ in range(data.draw(st.integers(0, 4))):
        new = data.draw(st.lists(token, min_size=len(rows), max_size=len(rows)))
        counts, rows = counts.add(torch.tensor(new)), [[*row, t] for row, t in zip(rows, new, strict=True)]
        check(counts, rows)
        keep = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
        check(counts.select(torch.tensor(keep)), [rows[i] for i in keep])
    check(counts.repeat(3), [row for row in rows for _ in range(3)])


def test_counts_without_mask_count_everything() -> None:
    counts = TokenCounts.of_prompts(torch.tensor([[5, 5, 1, 5]]))
    assert counts.dense(6).tolist() == [[0, 1, 0, 0, 0, 3]]


# ------------------------------------------------------------------------------------------------------- distribution

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
    for draw in (next_tokens, sampler._drawn_by_sorting, sampler._drawn_by_bins):
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


# --------------------------------------------------------------------------------------------- one answer, many paths

KINDS = {
    "peaked": lambda b, v: gaussian(b, v, scale=4.0),
    "flat": lambda b, v: gaussian(b, v, scale=0.3),  # the nucleus is far wider than any slice
    "uniform": lambda b, v: torch.zeros(b, v),
    "ties": lambda b, v: gaussian(b, v).round(),
    "bfloat16": lambda b, v: gaussian(b, v).bfloat16(),
    "shifted": lambda b, v: gaussian(b, v) - 110.0,
    "sparse": lambda b, v: gaussian(b, v).masked_fill(gaussian(b, v, seed=5) < 3.0, -math.inf).index_fill(1, ZERO, 0.5),
    "steep": lambda b, v: -torch.arange(v).expand(b, v) * 7.0,
}
ZERO = torch.tensor([0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d_vocab", [1, 2, 65, 300, 5000])
@pytest.mark.parametrize("top_p", [1e-4, 0.3, 1 - 2.0**-53])
def test_all_paths_draw_the_same(kind: str, d_vocab: int, top_p: float) -> None:
    batch = 24
    logits = KINDS[kind](batch, d_vocab)
    tokens = torch.randint(0, d_vocab, (batch, 9), generator=torch.Generator().manual_seed(2))
    counts, u = TokenCounts.of_prompts(tokens), stream(batch)
    for sampling in (Sampling(top_p=top_p), Sampling(top_p=top_p, top_k=100, frequency_penalty=0.0)):
        expected = sampler._drawn_by_sorting(logits, sampling, u, counts)
        assert next_tokens(logits, sampling, u, counts).equal(expected)
        assert sampler._drawn_by_bins(logits, sampling, u, counts).equal(expected)
        top = sampler._top_by_group(logits, sampling, counts)
        drawn, found = sampler._drawn_from_top(top, u, top_p)
        assert drawn[found].equal(expected[found])
        allowed = sampling_log_probs(logits, sampling, counts).gather(1, expected[:, None])
        assert (allowed > -math.inf).all()
        if d_vocab <= 256:
            assert found.all()
        if d_vocab == 5000 and kind in ("flat", "uniform") and top_p > 0.2 and sampling.top_k is None:
            assert not found.any()  # so that the whole vocabulary has been drawn from


def test_the_device_s_paths_run_in_groups_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, u = gaussian(11, 700), stream(11)
    counts = TokenCounts.of_prompts(logits.topk(4).indices)
    expected = [next_tokens(logits, s, u, counts) for s in (Sampling(), PLAIN)]
    monkeypatch.setattr(sampler, "_groups", lambda logits: [slice(0, 4), slice(4, 8), slice(8, 11)])
    assert sampler._drawn_by_sorting(logits, Sampling(), u, counts).equal(expected[0])
    assert sampler._drawn_from_top(sampler._top_by_group(logits, Sampling(), counts), u, 0.3)[0].equal(expected[0])
    assert sampler._drawn_by_id(logits, PLAIN, u, counts).equal(expected[1])


# ----------------------------------------------------------------------------------------------- what must not matter


@pytest.mark.parametrize("d_vocab", [1, 3, 17, 64, 255, 1000, 8191, 50257])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.97), Sampling(top_p=1.0)], ids=str)
def test_a_row_does_not_see_its_batch(d_vocab: int, sampling: Sampling, threads: None) -> None:
    batch = 37 if d_vocab < 10_000 else 11
    logits = gaussian(batch, d_vocab, scale=2.0)
    logits[::5] *= 0.1  # wide nuclei, which take the other path
    prompts = torch.randint(0, d_vocab, (batch, 7), generator=torch.Generator().manual_seed(3))
    u, counts = stream(batch), TokenCounts.of_prompts(prompts)
    expected = next_tokens(logits, sampling, u, counts)
    top = sampler._top_by_row(logits, sampling, counts)
    generator = torch.Generator().manual_seed(4)
    for size in (1, 2, 3, 8, batch):
        rows = torch.randperm(batch, generator=generator)[:size]
        part = counts.select(rows)
        assert next_tokens(logits[rows], sampling, u[rows], part).equal(expected[rows])
        alone = sampler._top_by_row(logits[rows], sampling, part)
        assert alone.weights.equal(top.weights[rows])  # to the last bit, not only in the token that came of it
        assert alone.total.equal(top.total[rows])
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


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("value", [math.nan, math.inf, "all -inf"])
@pytest.mark.parametrize("sampling", [Sampling(), PLAIN, Sampling(temperature=0), Sampling(top_k=3)], ids=str)
def test_rows_without_a_distribution_are_an_error(value: float | str, sampling: Sampling) -> None:
    logits = gaussian(4, 300)
    if isinstance(value, str):
        logits[2] = -math.inf
    else:
        logits[2, 17] = value
    counts = TokenCounts.of_prompts(torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(SteerlensError, match=r"^row 2: the largest logit"):
        next_tokens(logits, sampling, stream(4), counts)
    with pytest.raises(SteerlensError, match=r"^row 2: the largest logit"):
        sampling_log_probs(logits, sampling, counts)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_where_nothing_may_wait_a_lost_row_gets_no_token_and_the_others_theirs(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, u = gaussian(4, 300), stream(4)
    expected = [next_tokens(logits, s, u, TokenCounts.of_prompts(ZERO.expand(4, 1))) for s in (Sampling(), PLAIN)]
    logits[1] = value
    counts = TokenCounts.of_prompts(ZERO.expand(4, 1))

    def without_waiting(tokens: Tensor, largest: Tensor) -> Tensor:
        return torch.where(largest.isfinite(), tokens, sampler.NO_TOKEN)

    monkeypatch.setattr(sampler, "_settled", without_waiting)
    by_sorting = sampler._drawn_by_sorting(logits, Sampling(), u, counts)
    from_top, found = sampler._drawn_from_top(sampler._top_by_group(logits, Sampling(), counts), u, 0.3)
    by_id = sampler._drawn_by_id(logits, PLAIN, u, counts)
    assert found.all()
    for tokens, right in ((by_sorting, expected[0]), (from_top, expected[0]), (by_id, expected[1])):
        assert tokens[[0, 2, 3]].equal(right[[0, 2, 3]])
        assert tokens[1] == sampler.NO_TOKEN
    assert counts.add(by_sorting).dense(300)[1, 0] == 2


def test_minus_infinity_means_never() -> None:
    logits = torch.full((200, 50), -math.inf)
    logits[:, [3, 30]] = 0.0
    for sampling in (
        PLAIN,
        Sampling(top_p=0.9, frequency_penalty=0),
        Sampling(top_k=40, top_p=1.0, frequency_penalty=0),
    ):
        assert set(next_tokens(logits, sampling, stream(200)).tolist()) == {3, 30}


def test_what_is_missing_is_named(shapes_unchecked: None) -> None:
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
    with pytest.raises(SteerlensError, match=r"tokens are \[2, 3\] but mask is \[2, 4\]; give one entry per token"):
        TokenCounts.of_prompts(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 4))
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
    assert counts.add(torch.zeros(0, dtype=torch.int64)).tokens.shape == (0, 4)


# --------------------------------------------------------------------------------------------------------- on a device


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
        assert next_tokens(logits, sampling, u, counts, allow_sync=True).equal(found)
        rows = torch.tensor([5, 299, 0, 14], device="cuda")
        for size in (1, 4):
            part = rows[:size]
            assert next_tokens(logits[part], sampling, u[part], counts.select(part)).equal(found[part])
        same = next_tokens(logits.cpu(), sampling, u.cpu(), counts.to("cpu")) == found.cpu()
        assert same.float().mean() > 0.98  # exponentials differ in the last bit between devices
