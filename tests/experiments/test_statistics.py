"""Tests and intervals against textbook numbers and scipy's own, slower ways."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.special
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
    assert statistics.paired(*outcomes(70, 0, 0, 30)) == statistics.Difference(0, 0, 0, 1, (0, 0), 0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """400 experiments whose true difference is 4 points: some 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        counts = rng.multinomial(1000, [0.7, 0.05, 0.09, 0.16])
        difference = statistics.paired(*outcomes(*counts), seed=seed)
        held += difference.low <= 0.04 <= difference.high
    assert 0.92 <= held / 400 <= 0.98


def drawn(rng: np.random.Generator, seeds: int, shape: "Shape", logits: np.ndarray, better: float = 0) -> np.ndarray:
    """Return (seeds, images) outcomes of a configuration: each seed has its own level, each image its difficulty."""
    own = rng.normal(0, shape.images, shape.count)
    levels = rng.normal(better, shape.seeds, (seeds, 1))
    return rng.random((seeds, shape.count)) < scipy.special.expit(logits + own + levels)


@dataclass(frozen=True)
class Shape:
    """How outcomes vary.

    Attributes:
        seeds: standard deviation between seeds, in logits.
        images: standard deviation of what is difficult for one configuration only, in logits.
        count: number of images.
    """

    seeds: float
    images: float
    count: int


def simulated(
    shape: Shape, counts: tuple[int, int], repetitions: int, better: float = 0
) -> list[statistics.Difference]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(repetitions):
        logits = rng.normal(1.2, 1.5, shape.count)
        sides = drawn(rng, counts[0], shape, logits), drawn(rng, counts[1], shape, logits, better)
        found.append(statistics.over_seeds(*sides))
    return found


LEVELS = (0.80, 0.82, 0.84), (0.84, 0.88, 0.92)
SHAPES = {
    "chance in images": Shape(0, 0, 200),
    "seeds": Shape(0.3, 0, 200),
    "images": Shape(0, 1, 200),
    "both": Shape(0.1, 1, 200),
    "few images": Shape(0.1, 0.5, 50),
}


@pytest.mark.parametrize("counts", [(2, 2), (3, 3), (2, 5), (3, 10)], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_without_a_difference_five_in_a_hundred_are_significant_at_most(shape, counts):
    """1,000 A/A comparisons, within the binomial error of 95 %; then the interval holds 0 in as many."""
    found = simulated(shape, counts, 1000)
    significant = sum(difference.p_value < 0.05 for difference in found)
    assert significant <= scipy.stats.binom.ppf(0.999, 1000, 0.05)
    assert sum(difference.low <= 0 <= difference.high for difference in found) == 1000 - significant


def test_one_seed_on_each_side_speaks_of_two_networks_only():
    """Five in a hundred where seeds differ by chance in single images alone; far more where they vary themselves."""
    rng = np.random.default_rng(0)
    significant = {}
    for between in (0, 0.3):
        shape, found = Shape(between, 0, 2000), 0
        for _ in range(1000):
            logits = rng.normal(1.2, 1.5, shape.count)
            base, candidate = (drawn(rng, 1, shape, logits)[0] for _ in range(2))
            won, lost = (candidate & ~base).sum(), (base & ~candidate).sum()
            found += scipy.stats.binomtest(int(won), int(won + lost)).pvalue < 0.05
        significant[between] = found
    assert significant[0] <= scipy.stats.binom.ppf(0.999, 1000, 0.05)
    assert significant[0.3] > 300


def test_a_true_difference_is_covered_and_is_found_more_often_with_more_seeds():
    """The true difference is the mean over many images; power rises from 2 to 10 seeds."""
    shape = Shape(0.1, 0.5, 1000)
    rng = np.random.default_rng(1)
    logits = rng.normal(1.2, 1.5, 10**6) + rng.normal(0, 0.5, 10**6) + rng.normal(0, 0.1, 10**6)
    truth = scipy.special.expit(logits + 0.3).mean() - scipy.special.expit(logits).mean()
    power = []
    for seeds in (2, 3, 10):
        found = simulated(shape, (seeds, seeds), 400, better=0.3)
        assert sum(difference.low <= truth <= difference.high for difference in found) >= scipy.stats.binom.ppf(
            0.001, 400, 0.95
        )
        power.append(sum(difference.p_value < 0.05 for difference in found) / 400)
    assert power == sorted(power)
    assert power[0] < 0.5 < 0.9 < power[-1]


def test_with_many_images_it_is_welchs_test():
    """Where the seeds differ by more than chance in images: scipy's value, interval and p."""
    rng = np.random.default_rng(0)
    base, candidate = (np.stack([rng.random(10**5) < level for level in levels]) for levels in LEVELS)
    found = statistics.over_seeds(base, candidate)
    welch = scipy.stats.ttest_ind(candidate.mean(1), base.mean(1), equal_var=False)
    interval = welch.confidence_interval()
    assert found.value == pytest.approx(candidate.mean() - base.mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.01)
    assert found.p_value == pytest.approx(welch.pvalue, rel=0.02)
    assert found.spread == pytest.approx((base.mean(1).std(ddof=1), candidate.mean(1).std(ddof=1)))


def test_seeds_without_any_variation():
    """Equal predictions of all seeds and both sides: no difference; the whole test set lost: a difference."""
    same = np.ones((3, 50), bool)
    assert (statistics.over_seeds(same, same).p_value, statistics.over_seeds(same, ~same).p_value) == (1, 0)


def test_the_planned_seeds_have_the_power_that_is_promised():
    """By simulation: the planned number shows the effect in 80 % of the comparisons, half of it in fewer."""
    spread = 0.004
    difference = statistics.Difference(0, 0, 0, 1, (spread, spread), 0.001)
    seeds = statistics.seeds_to_show(0.006, difference)
    assert 5 <= seeds <= 12
    rng = np.random.default_rng(0)
    shown = {}
    for count in (seeds, seeds // 2):
        base = rng.normal(0, spread, (count, 2000))
        candidate = rng.normal(0.006, spread, (count, 2000)) + rng.normal(0, 0.001, 2000)
        shown[count] = (scipy.stats.ttest_ind(candidate, base).pvalue < 0.05).mean()
    assert 0.77 < shown[seeds] < 0.9
    assert shown[seeds // 2] < 0.7


def test_some_differences_no_number_of_seeds_can_show():
    """Smaller than what the choice of test images makes."""
    assert statistics.seeds_to_show(0.001, statistics.Difference(0, 0, 0, 1, (0.001, 0.001), 0.002)) is None
    assert statistics.seeds_to_show(0.003, statistics.Difference(0, 0, 0, 1, (0, 0), 0)) == 2


def test_holm_by_hand():
    """Smallest times three, next times two, never falling, at most 1."""
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.6]) == pytest.approx([1, 1])
    assert statistics.holm([]) == []


def test_pareto_front():
    """Cheaper or better than every other; equal points are on it together."""
    assert statistics.pareto([1, 2, 3, 2], [0.5, 0.7, 0.6, 0.7]) == [True, True, False, True]
