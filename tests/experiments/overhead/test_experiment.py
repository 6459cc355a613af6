"""Overhead: the arithmetic of premiums with clocks that tell what they are told, and what is really run."""

from __future__ import annotations

import inspect
import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steerlens as sl
from steerlens.experiments.overhead import timing
from steerlens.experiments.overhead.experiment import QUICK, overhead
from steerlens.experiments.overhead.premium import premium
from steerlens.experiments.overhead.timing import PassTimes, alternate
from tests.conftest import live_hooks, loaded

SMALL: dict[str, Any] = {"batch": 2, "tokens": 12, "forwards": 4, "seeds": 3, "warm_up": 1}


class FakeDevice:
    """A clock, and work that takes time only when the device is waited for: as a GPU's queue."""

    def __init__(self) -> None:
        self.now, self.queued, self.log = 0.0, 0.0, []

    def work(self, name: str, seconds: float) -> Any:
        def run() -> None:
            self.log.append(name)
            self.queued += seconds

        return run

    def wait(self) -> None:
        self.now, self.queued = self.now + self.queued, 0.0

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", range(3))
def test_passes_alternate_in_random_order_and_each_is_waited_for(seed: int) -> None:
    device = FakeDevice()
    device.queued = 99.0  # what was queued before is not counted
    base, steered = alternate(
        device.work("base", 1.0),
        device.work("steered", 1.25),
        repeats=40,
        coin=random.Random(seed),
        clock=device.clock,
        wait=device.wait,
    )
    assert base == [1.0] * 40 and steered == [1.25] * 40
    pairs = list(zip(device.log[::2], device.log[1::2], strict=True))
    assert all(set(pair) == {"base", "steered"} for pair in pairs)
    assert 8 < sum(pair[0] == "base" for pair in pairs) < 32


def test_premium_is_the_papers_ratio_of_means() -> None:
    found = premium([1.2, 2.4, 3.0], [1.0, 2.0, 3.0])
    assert found.estimate == pytest.approx(6.6 / 6.0 - 1)
    assert found.low < found.estimate < found.high and found.n == 3


def test_the_interval_of_a_ratio() -> None:
    """With equal base times it is Student's interval of the steered times; proportional times leave no doubt."""
    steered = np.array([1.1, 1.3, 1.2, 1.25])
    mean, error = steered.mean(), steered.std(ddof=1) / 2
    found = premium(steered, np.ones(4))
    assert found.low == pytest.approx(mean - 1 - 3.182446305 * error) and found.high == pytest.approx(
        mean - 1 + 3.182446305 * error
    )
    exact = premium(1.5 * steered, steered)
    assert exact.low == pytest.approx(0.5) and exact.high == pytest.approx(0.5)
    assert np.isnan(premium([2.0], [1.0]).low)
    with pytest.raises(sl.SteerlensError, match="one time of each per seed"):
        premium([1.0, 2.0], [1.0])


TIMES = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)), min_size=2, max_size=12)


@given(TIMES, st.floats(0.001, 1000))
def test_a_premium_has_no_unit_and_of_a_thing_to_itself_is_0(times: list[tuple[float, float]], unit: float) -> None:
    steered, base = np.array(times).T
    one, other = premium(steered, base), premium(unit * steered, unit * base)
    assert [one.estimate, one.low, one.high] == pytest.approx([other.estimate, other.low, other.high], abs=1e-9)
    assert one.estimate > -1 and one.low <= one.estimate <= one.high
    same = premium(base, base)
    assert [same.estimate, same.low, same.high] == pytest.approx([0, 0, 0], abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        speed = generator.normal(1.0, 0.1, 10)  # what a seed has in common
        found = premium(1.07 * speed + generator.normal(0, 0.03, 10), speed + generator.normal(0, 0.03, 10))
        hits += found.low <= 0.07 <= found.high
    assert 0.92 < hits / 600 < 0.975


def test_a_clock_that_ticks_at_every_look(any_model) -> None:
    """Everything then takes one second: a steered pass is free, and the extraction adds 1 / forwards."""
    ticks = itertools.count()
    result = overhead(any_model, **SMALL, clock=lambda: float(next(ticks)))
    row = result.frame.iloc[0]
    assert (row["premium_forward"], row["premium_median"]) == (0.0, 0.0)
    assert row["premium"] == pytest.approx(1 / 4) and row["low"] == row["high"] == pytest.approx(1 / 4)
    assert row["base"] == row["steered"] == row["extraction"] == 1.0
    assert result.times[["base", "steered"]].to_numpy().tolist() == [[4.0, 4.0]] * 3
    assert next(ticks) == 2 * 3 * (1 + 2 * 4)  # nothing else was looked at


def test_what_runs_is_the_model_and_the_model_steered(any_model, monkeypatch) -> None:
    seen: list[tuple[int, ...]] = []
    added: list[Any] = []
    real = timing.steer

    def watching(model: Any, vector: Any) -> Any:
        added.append(vector)
        return real(model, vector)

    monkeypatch.setattr(timing, "steer", watching)
    handle = any_model.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(tuple(args[0].shape[:2])))
    before = live_hooks(any_model)
    state = torch.random.get_rng_state()
    try:
        overhead(any_model, **SMALL, coeff=2.0, layer=2)
    finally:
        handle.remove()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert live_hooks(any_model) == {name: n for name, n in before.items() if name != "before block 0"}
    assert len(added) == 3 * 4 + 1 and all(v.layer == 2 and v.coeff == 2.0 for v in added)
    expected = sl.actadd(any_model, "This is a test prompt.", "", layer=2)
    assert torch.allclose(added[-1].values, 2 * expected.values, atol=1e-5)
    assert seen.count((2, 12)) == 2 * (3 * 4 + 1)  # base and steered, measured and warm-up


def test_tokens_differ_by_seed_and_come_again(any_model) -> None:
    job = PassTimes(
        any_model, sl.PromptPair("a", "b"), 0, coeff=1.0, batch=32, tokens=50, forwards=1, clock=lambda: 0.0
    )
    assert job.random_tokens(1).shape == (32, 50)
    assert torch.equal(job.random_tokens(1), job.random_tokens(1))
    assert not torch.equal(job.random_tokens(1), job.random_tokens(2))


def test_several_models_and_real_clocks() -> None:
    small, other = loaded("gpt2", "bridge"), loaded("llama", "bridge")
    result = overhead([small, other], **SMALL)
    assert len(result.frame) == 2 and len(result.times) == 6
    assert (result.frame["base"] > 0).all() and (result.frame["layer"] == 1).all()  # of 3: the middle
    assert result.frame["parameters"].tolist() == [sum(w.numel() for w in m.parameters()) for m in (small, other)]
    assert len(result.plot().data) == 4


def test_models_of_one_name_are_told_apart(any_model) -> None:
    names = overhead([any_model] * 3, **SMALL).frame["model"]
    assert names.nunique() == 3 and names[1].startswith(names[0]) and type(any_model).__name__ in names[1]


def test_models_by_name() -> None:
    result = overhead("demo", batch=1, tokens=10, forwards=1, seeds=1, warm_up=0)
    assert result.frame["layer"].tolist() == [6] and result.frame["model"].tolist() == ["demo"]
    assert np.isnan(result.frame["low"].item())
    assert "one seed, no interval" in [one.note for one in result.headlines()]


def test_a_stopped_run_goes_on(any_model, tmp_path: Path) -> None:
    store = tmp_path / "times.sqlite"
    looks = itertools.count()

    def stopping() -> float:
        look = next(looks)
        if look == 25:  # within the second seed
            raise KeyboardInterrupt
        return float(look) ** 1.1

    with pytest.raises(KeyboardInterrupt):
        overhead(any_model, **SMALL, store=store, clock=stopping)
    resumed = overhead(any_model, **SMALL, store=store, clock=stopping)
    assert next(looks) == 26 + 2 * 2 * (1 + 2 * 4)  # two seeds were left
    again = overhead(any_model, **SMALL, store=store, clock=lambda: 1 / 0)
    assert again.times.equals(resumed.times) and again.frame.equals(resumed.frame)


def test_the_defaults_are_the_papers() -> None:
    wanted = {"batch": 32, "tokens": 64, "forwards": 100, "seeds": 10}
    assert {key: inspect.signature(overhead).parameters[key].default for key in wanted} == wanted
    assert set(QUICK) <= set(inspect.signature(overhead).parameters)


def test_page(any_model, tmp_path: Path) -> None:
    result = overhead(any_model, **SMALL)
    page = result.save(tmp_path / "out").read_text(encoding="utf-8")
    assert "What does steering cost in time?" in page and "premium" in page
    assert result.settings["pair"] == "'This is a test prompt.' − ''" and result.settings["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"forwards": 0}, "forwards must be"),
        ({"seeds": True}, "seeds must be"),
        ({"layer": 3}, "layer 3 is out of range for a model of 3 layers; use 0 to 2"),
        ({"tokens": 65}, "tokens=65 exceeds the model's context of 64"),
        ({"tokens": 3}, "the vector spans"),
    ],
)
def test_bad_input_is_one_clear_line(any_model, arguments, words) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        overhead(any_model, **{**SMALL, **arguments})
    assert "\n" not in str(caught.value)


def test_no_models_and_no_model() -> None:
    with pytest.raises(sl.SteerlensError, match="there are no models"):
        overhead([])
    with pytest.raises(sl.SteerlensError, match="expected a HookedTransformer"):
        overhead(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
