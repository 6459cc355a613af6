"""Statistics against published values, and their coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.errors import SteerlensError
from steerlens.measures.statistics import (
    bootstrap_interval,
    mcnemar,
    mean_interval,
    metric_interval,
    paired_difference,
    pareto_front,
    t_quantile,
    wilson_interval,
)

# Student 1908, extra hours of sleep with two drugs; R: t.test(paired = TRUE) gives 0.7001, 2.4599 and p = 0.002833.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998(successes, n, low, high):
    interval = wilson_interval(successes, n)
    assert interval.estimate == interval.mean == pytest.approx(successes / n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_wilson_takes_arrays_and_gives_nan_for_no_trials():
    interval = wilson_interval([0, 3, 0], [10, 10, 0])
    assert interval.low.shape == (3,)
    assert interval.low[0] == 0.0
    assert interval.high[1] == wilson_interval(3, 10).high
    assert np.isnan([interval.estimate[2], interval.low[2], interval.high[2]]).all()
    assert wilson_interval(7, 7).high == 1.0


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_stays_within_0_and_1_around_the_share_and_mirrors(case, level):
    hits, n = case
    interval, mirror = wilson_interval(hits, n, level), wilson_interval(n - hits, n, level)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.low == pytest.approx(1 - mirror.high, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1), (math.nan, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(SteerlensError, match=r"successes"):
        wilson_interval(successes, n)


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 3, 3.18245),
        (0.975, 10, 2.22814),
        (0.995, 10, 3.16927),
        (0.95, 30, 1.69726),
        (0.975, 120, 1.97993),
        (0.975, 1000, 1.96234),
        (0.975, 5000, 1.96044),
        (0.025, 10, -2.22814),
    ],
)
def test_t_quantile_gives_the_tables(probability, degrees, value):
    assert t_quantile(probability, degrees) == pytest.approx(value, abs=1e-5)


def test_t_quantile_has_no_step_where_the_method_changes():
    assert t_quantile(0.975, 1000) - t_quantile(0.975, 1001) == pytest.approx(2.4e-6, abs=2e-7)


def test_mean_interval_of_students_sleep_data():
    interval = mean_interval(np.subtract(DRUG_2, DRUG_1))
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((1.58, 0.7001, 2.4599), abs=5e-5)
    assert interval.n == 10


def test_mean_interval_of_one_value_of_none_and_of_rows():
    one, none = mean_interval([3.0]), mean_interval([])
    assert one.estimate == 3.0
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert math.isnan(none.estimate)
    assert none.n == 0
    rows = mean_interval([[1.0, 2.0, np.nan], [1.0, 2.0, 3.0]], nan="omit")
    assert list(rows.n) == [2, 3]
    assert rows.low[0] == pytest.approx(1.5 - 12.7062 * 0.5, abs=1e-3)
    assert rows.low[1] == mean_interval([1.0, 2.0, 3.0]).low


def test_mean_interval_says_how_many_values_are_nan_or_infinite():
    with pytest.raises(SteerlensError, match="1 of 3 values are NaN"):
        mean_interval([1.0, np.nan, 2.0])
    with pytest.raises(SteerlensError, match="1 of 2 values are infinite"):
        mean_interval([1.0, np.inf], nan="omit")
    with pytest.raises(SteerlensError, match="level = 95"):
        wilson_interval(1, 2, level=95)


def test_metric_interval_is_wilson_for_shares_and_t_for_means_without_nan():
    values = [1.0, 0.0, 1.0, np.nan]
    assert metric_interval(values, "share") == wilson_interval(2, 3)
    assert metric_interval(values, "mean") == mean_interval(values[:3])
    assert math.isnan(metric_interval([np.nan], "share").mean)
    with pytest.raises(SteerlensError, match=r"hold 0\.5"):
        metric_interval([0.5], "share")
    with pytest.raises(SteerlensError, match="'median'"):
        metric_interval([0.5], "median")


def test_wilson_covers_what_it_claims():
    generator = np.random.default_rng(1)
    for share in (0.02, 0.2, 0.5, 0.9):
        interval = wilson_interval(generator.binomial(200, share, size=20_000), 200)
        assert 0.93 < np.mean((interval.low <= share) & (share <= interval.high)) < 0.98


def test_mean_interval_covers_what_it_claims():
    interval = mean_interval(np.random.default_rng(2).normal(5.0, 3.0, size=(20_000, 6)))
    assert np.mean((interval.low <= 5.0) & (interval.high >= 5.0)) == pytest.approx(0.95, abs=0.006)


def test_bootstrap_covers_about_what_it_claims():
    generator = np.random.default_rng(3)
    samples = generator.exponential(2.0, size=(400, 60))
    intervals = [bootstrap_interval(row, resamples=400, seed=index) for index, row in enumerate(samples)]
    assert 0.89 < np.mean([one.low <= 2.0 <= one.high for one in intervals]) < 0.98


def test_bootstrap_is_fixed_by_its_seed_and_leaves_global_randomness_alone():
    values = np.random.default_rng(0).normal(size=50)
    state = np.random.get_state()[1].copy()
    first, again = bootstrap_interval(values, seed=4), bootstrap_interval(values, seed=4)
    assert first == again
    assert first != bootstrap_interval(values, seed=5)
    assert (np.random.get_state()[1] == state).all()


def test_bootstrap_takes_other_statistics_rows_and_small_samples():
    values = np.arange(101.0)
    median = bootstrap_interval(values, np.median)
    assert median.estimate == 50
    assert 35 < median.low < 50 < median.high < 65
    both = bootstrap_interval(np.stack([values, -values], axis=1))
    assert both.estimate == pytest.approx([50, -50])
    assert both.low[0] == pytest.approx(-both.high[1])
    assert math.isnan(bootstrap_interval([1.0]).low)
    assert math.isnan(bootstrap_interval([]).estimate)


def test_bootstrap_in_blocks_has_every_resample(monkeypatch):
    values = np.random.default_rng(0).normal(size=40)
    counted = []

    def mean(array, axis):
        counted.append(array.shape[1] if array.ndim == 2 else 0)
        return array.mean(axis=axis)

    monkeypatch.setattr("steerlens.measures.statistics._BLOCK", 40 * 30)
    interval = bootstrap_interval(values, mean, resamples=100)
    assert counted == [0, 30, 30, 30, 10]
    assert interval.low < values.mean() < interval.high


def test_paired_difference_of_students_sleep_data():
    difference = paired_difference(DRUG_2, DRUG_1)
    assert (difference.estimate, difference.low, difference.high) == pytest.approx((1.58, 0.7001, 2.4599), abs=5e-5)
    assert difference.p_value == pytest.approx(0.002833, abs=5e-7)
    resampled = paired_difference(DRUG_2, DRUG_1, method="bootstrap", seed=1)
    assert 0.6 < resampled.low < 1.2 < 1.9 < resampled.high < 2.7
    assert resampled.p_value == pytest.approx(2 / 512, abs=0.004)  # 9 of the 10 differences are positive, one is 0


def test_mcnemar_is_the_two_sided_binomial_tail():
    assert mcnemar(10, 2) == mcnemar(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(2000, 0) < 1e-300 or mcnemar(2000, 0) == 0.0
    with pytest.raises(SteerlensError, match="negative"):
        mcnemar(-1, 2)


def test_paired_shares_use_the_discordant_pairs():
    before = np.repeat([0, 1, 0, 1], [60, 10, 25, 5])
    after = np.repeat([0, 1, 1, 0], [60, 10, 25, 5])
    difference = paired_difference(after, before, kind="share")
    assert difference.estimate == pytest.approx(0.20)
    assert difference.p_value == mcnemar(25, 5)
    assert difference.low < 0.20 < difference.high
    assert difference.low > 0


def test_paired_shares_cover_what_they_claim():
    generator = np.random.default_rng(6)
    hits = 0
    for _ in range(2000):
        outcome = generator.choice([0, 1, -1], p=[0.6, 0.3, 0.1], size=80)
        difference = paired_difference(outcome > 0, outcome < 0, kind="share")
        hits += difference.low <= 0.2 <= difference.high
    assert 0.93 < hits / 2000 < 0.975


def test_equal_data_differ_by_nothing():
    values = [0.0, 1.0, 1.0, 0.0]
    for kind in ("mean", "share"):
        for method in ("analytic", "bootstrap"):
            difference = paired_difference(values, values, kind=kind, method=method)
            assert difference.estimate == 0
            assert difference.p_value == 1


def test_paired_difference_refuses_what_is_not_paired():
    with pytest.raises(SteerlensError, match=r"\(2,\).*\(1,\)"):
        paired_difference([1, 2], [1])
    with pytest.raises(SteerlensError, match="no pairs"):
        paired_difference([], [])
    with pytest.raises(SteerlensError, match="zeros and ones"):
        paired_difference([0.3], [0.0], kind="share")
    with pytest.raises(SteerlensError, match="NaN"):
        paired_difference([math.nan], [0.0])
    assert math.isnan(paired_difference([2.0], [1.0]).p_value)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25))
def test_pareto_front_is_what_nothing_beats(points):
    effect, damage = [p[0] for p in points], [p[1] for p in points]
    beaten = [
        any((e >= a and d <= b) and (e > a or d < b) for e, d in points) for a, b in points
    ]  # fmt: skip
    assert list(pareto_front(effect, damage)) == [not one for one in beaten]


def test_pareto_front_leaves_nan_out():
    assert list(pareto_front([1, np.nan, 2], [1, 0, np.nan])) == [True, False, False]
