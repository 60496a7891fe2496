"""Tests and intervals against textbook numbers and scipy's own, slower ways."""

import numpy as np
import pytest
import scipy.stats

from pipeline.experiments import statistics


def outcomes(both: int, only_baseline: int, only_candidate: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    baseline = np.repeat([True, True, False, False], [both, only_baseline, only_candidate, neither])
    candidate = np.repeat([True, False, True, False], [both, only_baseline, only_candidate, neither])
    return baseline, candidate


def test_mcnemar_is_the_binomial_test_on_the_images_that_one_alone_gets_right():
    """5 against 15 discordant pairs: twice the lower tail of a fair coin, 0.0414."""
    difference = statistics.paired(*outcomes(60, 5, 15, 20))
    assert difference.p_value == pytest.approx(2 * scipy.stats.binom.cdf(5, 20, 0.5))
    assert difference.p_value == pytest.approx(0.041389, abs=1e-6)
    assert difference.value == pytest.approx(0.10)


def test_the_interval_is_that_of_resampling_images():
    """Against scipy's bootstrap, which draws the images themselves."""
    baseline, candidate = outcomes(300, 30, 60, 110)
    difference = statistics.paired(baseline, candidate)
    drawn = scipy.stats.bootstrap(
        (candidate.astype(float) - baseline,), np.mean, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    assert difference.low == pytest.approx(drawn.low, abs=0.005)
    assert difference.high == pytest.approx(drawn.high, abs=0.005)
    assert statistics.paired(baseline, candidate) == difference


def test_equal_predictions_show_no_difference():
    """No image tells them apart."""
    assert statistics.paired(*outcomes(70, 0, 0, 30)) == statistics.Difference(0, 0, 0, 1, "McNemar")


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """400 experiments whose true difference is 4 points: some 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        counts = rng.multinomial(1000, [0.7, 0.05, 0.09, 0.16])
        difference = statistics.paired(*outcomes(*counts), seed=seed)
        held += difference.low <= 0.04 <= difference.high
    assert 0.92 <= held / 400 <= 0.98


def test_welch_on_numbers_computed_by_hand():
    """Means 0.84 and 0.87, variances 1e-4 and 4e-4, n 3: t = 0.03 / sqrt(5e-4 / 3) = 2.3238 at 2.9412 degrees."""
    difference = statistics.welch([0.83, 0.84, 0.85], [0.85, 0.87, 0.89])
    freedom = 2.941176
    expected = 2 * scipy.stats.t.sf(2.323790, freedom)
    assert difference.value == pytest.approx(0.03)
    assert difference.p_value == pytest.approx(expected, rel=1e-5)
    half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(5e-4 / 3)
    assert (difference.low, difference.high) == pytest.approx((0.03 - half, 0.03 + half))


def test_welch_without_any_spread():
    """Three equal trainings against three equal others: a difference, or none, beyond doubt."""
    assert statistics.welch([0.5] * 3, [0.5] * 3).p_value == 1
    assert statistics.welch([0.5] * 3, [0.6] * 3).p_value == 0


def test_holm_by_hand():
    """Smallest times three, next times two, never falling, at most 1."""
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.6]) == pytest.approx([1, 1])
    assert statistics.holm([]) == []


def test_pareto_front():
    """Cheaper or better than every other; equal points are on it together."""
    assert statistics.pareto([1, 2, 3, 2], [0.5, 0.7, 0.6, 0.7]) == [True, True, False, True]
