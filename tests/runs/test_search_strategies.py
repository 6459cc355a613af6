"""Strategies of a search, on made-up landscapes: they find the peak, with fewer samples than the grid has."""

from __future__ import annotations

import numpy as np
import pytest

from steerlens.runs.search_ledger import Ledger, Space
from steerlens.runs.search_strategies import STRATEGIES, rungs_of, strategy_of

LAYERS, LEVELS, SAMPLES = 8, 8, 16


def landscape(seed: int = 0) -> tuple[Space, np.ndarray]:
    """A grid of two groups with one peak of 0.9, and every candidate's samples."""
    group, layer, level = (
        axis.flatten() for axis in np.meshgrid(range(2), range(LAYERS), range(LEVELS), indexing="ij")
    )
    truth = 0.9 * np.exp(-((layer - 5) ** 2) / 4 - (level - 4) ** 2 / 2) * np.where(group == 1, 1.0, 0.3)
    hits = np.random.default_rng(seed).random((len(group), SAMPLES)) < truth[:, None]
    return Space(group, layer, level, np.full((len(group), 2), np.nan)), hits


def run(name: str, seed: int, *, room: int = 8) -> tuple[Ledger, list[tuple[int, tuple[int, ...]]], list[int]]:
    """The ledger after everything was sampled, what was asked for in order, and the best after each step."""
    space, hits = landscape()
    rungs = rungs_of(name, SAMPLES)
    ends = np.cumsum(rungs)
    ledger, strategy, asked, best = Ledger(space, rungs), strategy_of(name, seed=seed), [], []
    while True:
        rung, chosen = strategy.ask(ledger, [room] * len(rungs))
        if not chosen:
            return ledger, asked, best
        assert len(chosen) == len(set(chosen)) <= room
        assert (ledger.rung[chosen] == rung).all()
        for one in chosen:
            mine = hits[one, ends[rung] - rungs[rung] : ends[rung]]
            ledger.take(one, float(mine.sum()), len(mine))
        asked.append((rung, tuple(chosen)))
        best.append(ledger.best())


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_candidate_gets_every_rung_once_and_the_peak_is_found(name: str) -> None:
    if name.startswith("tpe"):
        pytest.importorskip("optuna")
    ledger, asked, best = run(name, 3)
    _, hits = landscape()
    done = [(rung, one) for rung, chosen in asked for one in chosen]
    assert len(done) == len(set(done))
    full = ledger.rung == len(ledger.rungs)
    # Halving gives up on what has not succeeded once.
    assert full.all() or (name.endswith("+halving") and (ledger.hits[~full] == 0).all())
    assert hits[best[-1]].mean() >= 0.95 * hits.mean(1).max()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_seed_decides_everything(name: str) -> None:
    if name.startswith("tpe"):
        pytest.importorskip("optuna")
    assert run(name, 3)[1:] == run(name, 3)[1:]
    assert run(name, 3)[1] != run(name, 4)[1]


def test_halving_finds_the_peak_with_a_fifth_of_the_samples() -> None:
    _, hits = landscape()
    found = []
    for seed in range(10):
        ledger, asked, best = run("random+halving", seed, room=4)
        spent = np.cumsum([len(chosen) * ledger.rungs[rung] for rung, chosen in asked])
        found.append(hits[best[int(np.searchsorted(spent, 0.2 * hits.size))]].mean())
    assert np.median(found) >= 0.9 * hits.mean(1).max()


def test_rungs_add_up_to_the_samples() -> None:
    for samples in range(1, 70):
        for name in STRATEGIES:
            rungs = rungs_of(name, samples)
            assert sum(rungs) == samples and min(rungs) > 0
    assert rungs_of("random", 16) == (16,) and rungs_of("ordered+halving", 16) == (2, 4, 10)


def test_a_lucky_few_do_not_win() -> None:
    """Two of two is less than 30 of 32, unless the neighbours speak for it."""
    space = Space(np.array([0, 1]), np.array([0, 7]), np.array([0, 7]), np.full((2, 1), np.nan))
    ledger = Ledger(space, (2, 30))
    ledger.take(0, 2, 2)
    ledger.take(1, 2, 2)
    ledger.take(1, 28, 30)
    assert ledger.best() == 1


def test_no_room_is_nothing_to_do() -> None:
    space, _ = landscape()
    for name in ("random", "random+halving", "ordered+halving"):
        rungs = rungs_of(name, SAMPLES)
        assert strategy_of(name, seed=0).ask(Ledger(space, rungs), [0] * len(rungs))[1] == []


def test_the_cheap_looks_order_by_turns_but_do_not_prune() -> None:
    space, _ = landscape()
    up = np.arange(len(space), dtype=float)
    looks = np.stack([up, -up], axis=1)
    ledger = Ledger(Space(space.group, space.layer, space.level, looks), (2, 4, 10))
    _, chosen = strategy_of("ordered+halving", seed=0).ask(ledger, [9, 9, 9])
    assert chosen[0::3] == [len(space) - 1, len(space) - 2, len(space) - 3] and chosen[1::3] == [0, 1, 2]
    assert len(set(chosen)) == 9
