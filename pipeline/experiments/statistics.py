"""Significance tests and confidence intervals for accuracies, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
"""Significance level: the p-value below which a difference is significant."""

POWER = 0.8
"""Probability with which a planned number of seeds shows a difference of the size that was seen."""

MOST_SEEDS = 100
"""Largest number of seeds on each side that is planned."""

MOST_SHOWN = 30
"""Standard errors beyond which the noncentral t distribution need not be computed, and cannot be."""

RESAMPLES = 10_000
Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """The difference in accuracy between a candidate and a baseline.

    Attributes:
        value: difference in accuracy, candidate minus baseline, as a fraction.
        low, high: its 95 % confidence interval.
        p_value: two-sided p-value of the test.
        spread: standard deviation of the accuracy between seeds, of the baseline and of the candidate.
        images: standard error of the difference with infinitely many seeds, because the test images are a sample.
    """

    value: float
    low: float
    high: float
    p_value: float
    spread: tuple[float, float]
    images: float


def paired(baseline: Correct, candidate: Correct, *, seed: int = 0) -> Difference:
    """Compare two networks on the same images: McNemar's exact test and a bootstrap over images.

    The test uses the images that only one network classifies correctly (McNemar 1947, Psychometrika 12; the exact form
    is a binomial test with p = 1/2). The interval is a percentile bootstrap (Efron 1979) with 10,000 resamples, drawn
    as multinomial counts, which is equivalent to drawing images with replacement. Two networks do not show how seeds
    vary; if all they disagree on is due to the seeds, each seed's accuracy has the variance `disagreements / (2 N)`.

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
    spread = ((won + lost) / 2) ** 0.5 / count
    return Difference((won - lost) / count, float(low), float(high), p_value, (spread, spread), 0.0)


def over_seeds(baseline: Correct, candidate: Correct) -> Difference:
    """Compare two configurations by several seeds of each on the same images.

    Seeds and images are both samples: their variance components are those of a two-way random effects model without
    replication (Searle, Casella & McCulloch 1992, Variance Components, chapter 4). The difference of the means has the
    variance of the seeds of both sides plus that of the images' expected difference. The variance between seeds is
    taken to be at least what chance in single images causes, since few seeds can be close to each other by luck. The
    degrees of freedom are Satterthwaite's (1946, Biometrics Bulletin 2). With infinitely many images this is Welch's
    t-test.

    Args:
        baseline, candidate: (S, N) whether each of at least two seeds classified each image correctly.
    """
    images = baseline.shape[1]
    assert candidate.shape[1] == images, "not the same images"
    spread, chance = [], 0.0
    for side in (baseline, candidate):
        between = float(side.mean(1).var(ddof=1))
        single = max(0.0, float(side.var(0, ddof=1).mean()) - between) / (images - 1)
        spread.append(max(between, single))
        chance += single / len(side)
    difference = candidate.mean(0) - baseline.mean(0)
    parts = [spread[0] / len(baseline), spread[1] / len(candidate), max(0.0, difference.var(ddof=1) / images - chance)]
    freedom = (len(baseline) - 1, len(candidate) - 1, images - 1)
    value = float(difference.mean())
    low, high, p_value = value, value, float(value == 0)
    if (variance := sum(parts)) > 0:
        degrees = _satterthwaite(parts, freedom)
        half = float(scipy.special.stdtrit(degrees, (1 + CONFIDENCE) / 2)) * variance**0.5
        low, high, p_value = (
            value - half,
            value + half,
            2 * float(scipy.special.stdtr(degrees, -abs(value) / variance**0.5)),
        )
    deviations = (spread[0] ** 0.5, spread[1] ** 0.5)
    return Difference(value, low, high, p_value, deviations, parts[2] ** 0.5)


def seeds_to_show(effect: float, difference: Difference) -> int | None:
    """Return the smallest number of seeds on each side with which `over_seeds` shows an effect with power 0.8.

    The power is that of the t-test, by the noncentral t distribution.

    Args:
        effect: true difference in accuracy, as a fraction.
        difference: gives the spread of the seeds and the standard error due to the images.

    Returns:
        2 to 100; None if 100 do not suffice.
    """
    seeds = np.arange(2, MOST_SEEDS + 1)
    parts = [np.full(len(seeds), difference.images**2), *(deviation**2 / seeds for deviation in difference.spread)]
    variance = np.sum(parts, axis=0)
    if not variance.any():  # what never varies shows any effect
        return 2
    freedom = _satterthwaite(parts, (np.inf, seeds - 1, seeds - 1))
    critical = scipy.stats.t.ppf(1 - SIGNIFICANT / 2, freedom)
    shown = np.minimum(abs(effect) / np.sqrt(variance), MOST_SHOWN)
    enough = scipy.stats.nct.sf(critical, freedom, shown) >= POWER
    return int(seeds[enough.argmax()]) if enough.any() else None


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


def _satterthwaite(parts: Sequence[Any], freedom: Sequence[Any]) -> Any:
    """Return the degrees of freedom of a sum of independent variance estimates, each with its own."""
    squares = sum(part**2 / each for part, each in zip(parts, freedom, strict=True))
    return sum(parts) ** 2 / np.maximum(squares, np.finfo(float).tiny)


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
