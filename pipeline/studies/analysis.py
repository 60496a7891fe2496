"""Findings of a study's analysis (quantities, tables, figures), and the verdict that the study's rule gives."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipeline.config.section import CLASSES
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
    UNDECIDED = "cannot be decided"


@dataclass(frozen=True)
class Quantity:
    """A number that conditions refer to: its meaning, and its format as in f"{value:{form}}"."""

    meaning: str
    form: str


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


def met(condition: Condition, value: float) -> bool | None:
    """Return whether a condition is met; None: the value is unknown, or its bound allows both."""
    if math.isnan(value):
        return None
    found = condition.met(value)
    # All values beyond a bound are on the same side of the limit only if that side lies beyond the bound.
    if isinstance(value, MoreThan) and found != (condition.at_least is not None):
        return None
    if isinstance(value, LessThan) and found != (condition.at_most is not None):
        return None
    return found


def decide(rule: Sequence[Condition], quantities: Mapping[str, float]) -> Verdict:
    """Return the verdict on a claim.

    It holds if all conditions are met, does not hold here if no essential one is, and holds in part otherwise. It is
    undecided if that depends on a condition with an unknown result.
    """
    found = [met(condition, quantities[condition.quantity]) for condition in rule]
    worst, best = (_judged(rule, [unknown if one is None else one for one in found]) for unknown in (False, True))
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
