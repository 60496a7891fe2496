"""The leaderboard: trainings that differ in nothing but their seed in one row, rows in the order of a metric."""

import statistics as mean_and_spread
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.errors import PipelineError
from pipeline.experiments import statistics
from pipeline.experiments.repository import Revision
from pipeline.experiments.results import ORIGIN, Results

SEED = "train.seed"
UNCOMPARED = {SEED, "train.diagnostics", *ORIGIN}
"""Parameters that don't make two results different kinds: diagnostics watch a training and change nothing in it."""

SMALLER_IS_BETTER = (
    "loss",
    "error",
    "seconds",
    "latency",
    "bytes",
    "parameters",
    "macs",
    "memory",
    "difference",
    "dead",
    "saturated",
    "suspicious",
)


@dataclass(frozen=True)
class Member:
    """One result: the revision that carries it, what it recorded, and the names of others that carry the very same."""

    revision: Revision
    record: Results
    aliases: tuple[str, ...] = ()

    @property
    def seed(self) -> Any:
        """The seed of the training."""
        return self.record.params[SEED]


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard: trainings that differ in nothing but their seed.

    Attributes:
        name: of the experiment, or what its names have in common.
        members: in the order of their seeds, of which each has another.
        best, on_front: whether it is first by the sort metric, and on the Pareto front of accuracy against MACs.
    """

    name: str
    members: tuple[Member, ...]
    best: bool = False
    on_front: bool = False

    @cached_property
    def params(self) -> dict[str, Any]:
        """Parameters but for the seed, where the data came from and what inspect looked at."""
        return {key: value for key, value in self.members[0].record.params.items() if _tells_apart(key)}

    def values(self, metric: str) -> list[float]:
        """Return a metric of every member that has it."""
        found = (member.record.metrics.get(metric) for member in self.members)
        return [value for value in found if isinstance(value, int | float)]

    def mean(self, metric: str) -> float | None:
        """Return a metric's mean over the members, None if none has it."""
        values = self.values(metric)
        return mean_and_spread.fmean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Return a metric's standard deviation over the members (n - 1), None for fewer than two."""
        values = self.values(metric)
        return mean_and_spread.stdev(values) if len(values) > 1 else None


def group(members: Iterable[Member]) -> list[Row]:
    """Put trainings that differ in their seed only into one row.

    Two of the same seed that differ all the same (other code, another machine) go to different rows.
    """
    groups: dict[str, dict[Any, Member]] = {}
    for member in members:
        kind = sorted((key, value) for key, value in member.record.params.items() if _tells_apart(key))
        number = 0
        while member.seed in groups.setdefault(key := repr((kind, member.record.dataset_hash, number)), {}):
            number += 1
        groups[key][member.seed] = member
    ordered = [tuple(by_seed[seed] for seed in sorted(by_seed)) for by_seed in groups.values()]
    names = [_common_name([member.revision.name for member in row]) for row in ordered]
    for number, row in enumerate(ordered):
        if names.count(names[number]) > 1:
            names[number] += f" ({row[0].revision.sha[:7]})"
    return [Row(name, row) for name, row in zip(names, ordered, strict=True)]


def differing(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the parameters for which two rows that both have them disagree."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.params.items():
            found.setdefault(key, set()).add(repr(value))
    return tuple(key for key, values in found.items() if len(values) > 1)


def rank(rows: Sequence[Row], sort: str) -> list[Row]:
    """Return rows in the order of a metric, best first, with the best one and those on the Pareto front marked.

    Raises:
        PipelineError: none has that metric.
    """
    known = {key for row in rows for member in row.members for key in member.record.metrics}
    if not any(row.mean(sort) is not None for row in rows):
        close = sorted(key for key in known if key.split("/")[-1] == sort.split("/")[-1]) or ["val/accuracy"]
        raise PipelineError(f"--sort: expected a metric that is a number, found {sort}; for instance {close[0]}")
    sign = 1 if any(word in sort for word in SMALLER_IS_BETTER) else -1
    worst = float("inf")
    rows = sorted(rows, key=lambda row: worst if (value := row.mean(sort)) is None else sign * value)
    cost, gain = ([row.mean(metric) or 0.0 for row in rows] for metric in ("model/macs", "test/accuracy"))
    front = statistics.pareto(cost, gain)
    return [replace(row, best=number == 0, on_front=front[number]) for number, row in enumerate(rows)]


def _tells_apart(key: str) -> bool:
    """Say whether a parameter makes two results different kinds; those of inspect only decide what it looks at."""
    return key not in UNCOMPARED and not key.startswith("inspect.")


def _common_name(names: Sequence[str]) -> str:
    """Return what names share: relu-0 and relu-1 are "relu"; where that is nothing, the first and how many more."""
    if len(names) == 1:
        return names[0]
    shared = 0
    while len({name[: shared + 1] for name in names}) == 1 and shared < len(names[0]):
        shared += 1
    return names[0][:shared].rstrip("-_.") or f"{names[0]} and {len(names) - 1} more"
