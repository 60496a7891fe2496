"""Is one network better than another, or is it luck? Tests and intervals for accuracies, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
"""The p-value below which a difference counts as one."""

RESAMPLES = 10_000
Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """How much more accurate a candidate is than a baseline.

    Attributes:
        value: difference in accuracy, candidate minus baseline, as a fraction.
        low, high: its interval at 95 % confidence.
        p_value: how likely a difference this large or larger is if there is none in truth, two-sided.
        test: the name of the test that the p-value comes from.
    """

    value: float
    low: float
    high: float
    p_value: float
    test: str


def paired(baseline: Correct, candidate: Correct, *, seed: int = 0) -> Difference:
    """Compare two networks on the same images: McNemar's exact test and a bootstrap over images.

    Both look only at the images that one network alone gets right (McNemar 1947, Psychometrika 12; the exact form is
    a binomial test with p = 1/2). The interval is the percentile bootstrap's (Efron 1979) with 10,000 resamples, drawn
    as multinomial counts, which is the same as drawing images with replacement.

    Args:
        baseline, candidate: (N,) whether each image was classified right.
        seed: of the resamples.
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
    """Compare the mean accuracies of two sets of trainings that differ in their seeds (Welch 1947, Biometrika 34).

    Args:
        baseline, candidate: accuracies of at least two trainings each.
    """
    value = float(np.mean(candidate) - np.mean(baseline))
    if np.var(baseline) == np.var(candidate) == 0:  # the t statistic would be 0/0 or infinite
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, "Welch")
    result = scipy.stats.ttest_ind(candidate, baseline, equal_var=False)
    interval = result.confidence_interval(CONFIDENCE)
    return Difference(value, float(interval.low), float(interval.high), float(result.pvalue), "Welch")


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for having made several comparisons (Holm 1979, Scandinavian Journal of Statistics 6)."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(p_values) else scaled
    return [float(value) for value in adjusted]


def p_text(value: float) -> str:
    """Return a p-value as it is printed."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def pareto(cost: Sequence[float], gain: Sequence[float]) -> list[bool]:
    """Say of each point whether no other has at most its cost and at least its gain, and one of them truly better."""
    points = list(zip(cost, gain, strict=True))
    return [
        not any(c <= cost_ and g >= gain_ and (c < cost_ or g > gain_) for c, g in points) for cost_, gain_ in points
    ]
