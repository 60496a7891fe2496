"""Epochs and seconds to a target accuracy, with lower bounds for trainings that did not reach it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.studies.analysis import CHANCE, LessThan, MoreThan, with_spread


@dataclass(frozen=True)
class Reach:
    """When a training reached its target or, if `reached` is false, how long it ran below it."""

    epochs: float
    seconds: float
    reached: bool


def points(history: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return epochs trained and training accuracies, as fractions.

    A value of the history is the mean over its epoch, so it is placed at the epoch's middle; chance is placed at 0.
    """
    return [0.0, *(history["epoch"] - 0.5)], [CHANCE, *history["train/accuracy"]]


def reach(history: pd.DataFrame, target: float, seconds: float) -> Reach:
    """Return when the training accuracy first reached the target, interpolated linearly between epochs.

    Args:
        history: as `Collected.history` returns it.
        target: a fraction above chance.
        seconds: of the whole training, for all of its epochs.
    """
    assert target > CHANCE, target
    epochs, accuracies = points(history)
    per_epoch = seconds / len(history)
    for index in range(1, len(epochs)):
        if accuracies[index] >= target:
            share = (target - accuracies[index - 1]) / (accuracies[index] - accuracies[index - 1])
            found = epochs[index - 1] + share * (epochs[index] - epochs[index - 1])
            return Reach(found, found * per_epoch, reached=True)
    return Reach(epochs[-1], epochs[-1] * per_epoch, reached=False)


def mean_epochs(reaches: Sequence[Reach]) -> float:
    """Return the mean over seeds; `MoreThan` if one did not reach the target, NaN if there are none."""
    if not reaches:
        return math.nan
    mean = statistics.fmean(one.epochs for one in reaches)
    return mean if all(one.reached for one in reaches) else MoreThan(mean)


def written(reaches: Sequence[Reach], quantity: str) -> str:
    """Format the mean over seeds of "epochs" or "seconds" with its spread, or as a bound."""
    values = [getattr(one, quantity) for one in reaches]
    reached = sum(one.reached for one in reaches)
    if reached == len(values):
        return with_spread(values, digits=1)
    some = f" ({reached} of {len(values)} reached it)" if reached else ""
    return f"{MoreThan(statistics.fmean(values)):,.1f}{some}"


def ratio(slow: float, fast: float) -> float:
    """Divide two means, either of which may be `MoreThan`; NaN if the quotient is unknown."""
    both = isinstance(slow, MoreThan) and isinstance(fast, MoreThan)
    if both or math.isnan(slow) or math.isnan(fast):
        return math.nan
    quotient = float(slow) / float(fast)
    if isinstance(slow, MoreThan):
        return MoreThan(quotient)
    return LessThan(quotient) if isinstance(fast, MoreThan) else quotient
