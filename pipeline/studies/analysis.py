"""What a study's analysis gives: tables, pictures, the quantities that the rule looks at; and the rule's verdict."""

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
"""Accuracy of a network that guesses, which is what one is worth whose training diverged."""


class Verdict(StrEnum):
    """What the numbers allow to say of the claim."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    NOT_HERE = "does not hold here"
    UNDECIDED = "cannot be decided"


@dataclass(frozen=True)
class Quantity:
    """A number that conditions can look at: what it is, and how it is written (as in f"{value:{form}}")."""

    meaning: str
    form: str


class MoreThan(float):
    """A quantity of which all that is known is that it is more than this."""

    def __format__(self, form: str, /) -> str:
        return f"more than {super().__format__(form)}"


class LessThan(float):
    """A quantity of which all that is known is that it is less than this."""

    def __format__(self, form: str, /) -> str:
        return f"less than {super().__format__(form)}"


@dataclass(frozen=True)
class Picture:
    """A figure of the page: what is added to the page's name for its file, its caption, and what draws it."""

    suffix: str
    caption: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Findings:
    """What an analysis found.

    Attributes:
        quantities: a value for each quantity of the analysis; NaN: it can't be had, e.g. as a training diverged;
            MoreThan, LessThan: only a bound can.
    """

    quantities: dict[str, float]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Analysis:
    """How a study is read: the quantities it gives, by name, and what computes them from the results."""

    quantities: Mapping[str, Quantity]
    analyse: Callable[[Collected], Findings]


def met(condition: Condition, value: float) -> bool | None:
    """Say whether a condition is met; None: the value is not known, or its bound leaves both open."""
    if math.isnan(value):
        return None
    found = condition.met(value)
    # All that is above a lower bound is on one side of the limit only if that side is above.
    if isinstance(value, MoreThan) and found != (condition.at_least is not None):
        return None
    if isinstance(value, LessThan) and found != (condition.at_most is not None):
        return None
    return found


def decide(rule: Sequence[Condition], quantities: Mapping[str, float]) -> Verdict:
    """Judge a claim.

    It holds if all conditions are met, does not hold here if no essential one is, and holds in part otherwise. It is
    undecided if that depends on a condition of which it is not known.
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
    """Return an accuracy of a variant's experiments, by seed; those that diverged have that of guessing."""
    if metric not in collected.rows:
        return [CHANCE] * len(collected.of(variant))
    return [float(value) for value in collected.of(variant)[metric].fillna(CHANCE)]


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN of nothing."""
    return statistics.fmean(values) if values else math.nan


def in_points(value: float, form: str) -> str:
    """Write a difference of shares in percentage points, which may be unknown (NaN), as in f"{value:{form}}"."""
    return "an unknown number of points" if math.isnan(value) else f"{value:{form}} points"


def with_spread(values: Sequence[float], factor: float = 1.0, digits: int = 2) -> str:
    """Write the mean of values, and of several their standard deviation (n - 1)."""
    if not values:
        return ABSENT
    text = f"{statistics.fmean(values) * factor:,.{digits}f}"
    return f"{text} ± {statistics.stdev(values) * factor:.{digits}f}" if len(values) > 1 else text


def counted(collected: Collected, variant: str) -> str:
    """Write how many of a variant's trainings the numbers are of, and how many diverged."""
    reasons = list(collected.of(variant)["diverged"])
    diverged = sum(bool(reason) for reason in reasons)
    return f"{len(reasons) - diverged}" + (f" ({diverged} diverged)" if diverged else "")
