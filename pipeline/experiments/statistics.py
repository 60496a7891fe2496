"""Significance tests and confidence intervals for accuracies, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
"""Significance level: the p-value below which a difference is significant."""

RESAMPLES = 10_000
Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """The difference in accuracy between a candidate and a baseline.

    Attributes:
        value: difference in accuracy, candidate minus baseline, as a fraction.
        low, high: its 95 % confidence interval.
        p_value: two-sided p-value of the test.
        test: name of the test.
    """

    value: float
    low: float
    high: float
    p_value: float
    test: str


def paired(baseline: Correct, candidate: Correct, *, seed: int = 0) -> Difference:
    """Compare two networks on the same images: McNemar's exact test and a bootstrap over images.

    The test uses the images that only one network classifies correctly (McNemar 1947, Psychometrika 12; the exact form
    is a binomial test with p = 1/2). The interval is a percentile bootstrap (Efron 1979) with 10,000 resamples, drawn
    as multinomial counts, which is equivalent to drawing images with replacement.

    Args:
        baseline, candidate: (N,) whether each image was classified correctly.
        seed: of the resampling.
    """
    assert baseline.shape == candidate.shape, "not the same images"
    count = len(baseline)
    lost, won = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum())
    p_value = float(scipy.stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    shares = np.array([won, lost, count - won - lost]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=RESAMPLES)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, [tail, 1 - tail])
    return Difference((won - lost) / count, float(low), float(high), p_value, "McNemar")


def welch(baseline: Sequence[float], candidate: Sequence[float]) -> Difference:
    """Compare the mean accuracies of two sets of seeds with Welch's t-test (Welch 1947, Biometrika 34).

    Args:
        baseline, candidate: accuracies of at least two trainings each.
    """
    value = float(np.mean(candidate) - np.mean(baseline))
    if np.var(baseline) == np.var(candidate) == 0:  # the t statistic would be 0/0 or infinite
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, "Welch")
    result = scipy.stats.ttest_ind(candidate, baseline, equal_var=False)
    interval = result.confidence_interval(CONFIDENCE)
    return Difference(value, float(interval.low), float(interval.high), float(result.pvalue), "Welch")


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of at least two values by Student's t."""
    deviation = float(np.std(values, ddof=1))
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / len(values) ** 0.5
    mean = float(np.mean(values))
    return mean - half, mean + half


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of `count` images."""
    found = scipy.stats.binomtest(round(share * count), count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons (Holm 1979, Scandinavian Journal of Statistics 6)."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(p_values) else scaled
    return [float(value) for value in adjusted]


def p_text(value: float) -> str:
    """Format a p-value."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def pareto(cost: Sequence[float], gain: Sequence[float]) -> list[bool]:
    """Return for each point whether it is on the Pareto front of low cost and high gain."""
    points = list(zip(cost, gain, strict=True))
    return [
        not any(c <= cost_ and g >= gain_ and (c < cost_ or g > gain_) for c, g in points) for cost_, gain_ in points
    ]
