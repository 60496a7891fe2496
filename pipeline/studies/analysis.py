"""Findings of a study's analysis (quantities, tables, figures), intervals, and the verdict that the rule gives."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipeline.config.section import CLASSES
from pipeline.experiments.statistics import mean_interval
from pipeline.experiments.tables import ABSENT, Table
from pipeline.studies.collected import Collected
from pipeline.studies.spec import Condition

CHANCE = 1 / CLASSES
"""Accuracy of guessing, which also stands for a training that diverged."""


class Verdict(StrEnum):
    """What the results say of the claim."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    NOT_HERE = "does not hold here"
    UNDECIDED = "is undecided"


@dataclass(frozen=True)
class Quantity:
    """A number that conditions refer to: its meaning and its format as in f"{value:{form}}".

    `exact` says that it is computed from the parameters alone, so that it is the same for every seed.
    """

    meaning: str
    form: str
    exact: bool = False


class MoreThan(float):
    """A quantity of which only a lower bound is known."""

    def __format__(self, form: str, /) -> str:
        return f"more than {super().__format__(form)}"


class LessThan(float):
    """A quantity of which only an upper bound is known."""

    def __format__(self, form: str, /) -> str:
        return f"less than {super().__format__(form)}"


@dataclass(frozen=True)
class Picture:
    """A figure of the page: suffix of its file's name, caption, and the function that draws it to a path."""

    suffix: str
    caption: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Findings:
    """The result of an analysis.

    Attributes:
        quantities: a value for each quantity of the analysis; NaN: unknown, e.g. because a training diverged;
            MoreThan, LessThan: only a bound is known.
    """

    quantities: dict[str, float]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Analysis:
    """How a study is evaluated: the quantities that are measured, by name, and the function that does so."""

    quantities: Mapping[str, Quantity]
    analyse: Callable[[Collected], Findings]


@dataclass(frozen=True)
class Estimate:
    """A quantity and its 95 % interval over seeds.

    Attributes:
        value: NaN if unknown; MoreThan or LessThan if only a bound is known.
        low, high: NaN if the seeds do not give an interval; equal to the value if no training decides it.
        seeds: how many the interval is computed from.
    """

    value: float
    low: float
    high: float
    seeds: int = 1

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        """Return the estimate of a quantity that is known without error."""
        return cls(value, value, value)


def estimates(analysis: Analysis, collected: Collected, findings: Findings) -> dict[str, Estimate]:
    """Return every quantity of an analysis with its 95 % interval over seeds.

    The interval is a delete-one jackknife (Tukey 1958, Annals of Mathematical Statistics 29): the analysis is repeated
    without each seed in turn, and Student's t gives the limits, which works for means, ratios and maxima alike.
    """
    seeds = collected.seeds
    without = [analysis.analyse(collected.without(seed)).quantities for seed in seeds] if len(seeds) > 1 else []
    return {
        name: Estimate.exact(value)
        if analysis.quantities[name].exact
        else _jackknife(value, [found[name] for found in without])
        for name, value in findings.quantities.items()
    }


def _jackknife(value: float, without: Sequence[float]) -> Estimate:
    """Return an estimate from the value of all seeds and the values without each one."""
    known = all(math.isfinite(one) and not isinstance(one, MoreThan | LessThan) for one in (value, *without))
    if not known or len(without) < 2:
        return Estimate(value, math.nan, math.nan, len(without) or 1)
    pseudo = [len(without) * value - (len(without) - 1) * one for one in without]
    low, high = mean_interval(pseudo)
    half = (high - low) / 2
    return Estimate(value, value - half, value + half, len(without))


def met(condition: Condition, estimate: Estimate) -> bool | None:
    """Return whether a condition is met; None: the value is unknown, or its interval or bound allows both."""
    value = estimate.value
    if math.isnan(value):
        return None
    found = condition.met(value)
    # All values beyond a bound are on the same side of the limit only if that side lies beyond the bound.
    if isinstance(value, MoreThan):
        return found if found == (condition.at_least is not None) else None
    if isinstance(value, LessThan):
        return found if found == (condition.at_most is not None) else None
    if math.isinf(value):
        return found
    return found if condition.met(estimate.low) == condition.met(estimate.high) == found else None


def decide(rule: Sequence[Condition], found: Mapping[str, Estimate]) -> Verdict:
    """Return the verdict on a claim.

    It holds if all conditions are met, does not hold here if no essential one is, and holds in part otherwise. It is
    undecided if that depends on a condition with an unknown result.
    """
    results = [met(condition, found[condition.quantity]) for condition in rule]
    worst, best = (_judged(rule, [unknown if one is None else one for one in results]) for unknown in (False, True))
    return worst if worst is best else Verdict.UNDECIDED


def _judged(rule: Sequence[Condition], found: Sequence[bool]) -> Verdict:
    if all(found):
        return Verdict.HOLDS
    essential = [one for condition, one in zip(rule, found, strict=True) if condition.essential]
    return Verdict.IN_PART if any(essential) else Verdict.NOT_HERE


def or_chance(collected: Collected, variant: str, metric: str) -> list[float]:
    """Return an accuracy of a variant's experiments, by seed; `CHANCE` for trainings that diverged."""
    if metric not in collected.rows:
        return [CHANCE] * len(collected.of(variant))
    return [float(value) for value in collected.of(variant)[metric].fillna(CHANCE)]


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN if there are no values."""
    return statistics.fmean(values) if values else math.nan


def in_points(value: float, form: str) -> str:
    """Format a difference in percentage points, NaN if unknown, as in f"{value:{form}}"."""
    return "an unknown number of points" if math.isnan(value) else f"{value:{form}} points"


def with_spread(values: Sequence[float], factor: float = 1.0, digits: int = 2) -> str:
    """Format the mean of values and, if there are several, their standard deviation (n - 1)."""
    if not values:
        return ABSENT
    text = f"{statistics.fmean(values) * factor:,.{digits}f}"
    return f"{text} ± {statistics.stdev(values) * factor:.{digits}f}" if len(values) > 1 else text


def counted(collected: Collected, variant: str) -> str:
    """Format how many trainings of a variant finished, and how many diverged."""
    reasons = list(collected.of(variant)["diverged"])
    diverged = sum(bool(reason) for reason in reasons)
    return f"{len(reasons) - diverged}" + (f" ({diverged} diverged)" if diverged else "")
