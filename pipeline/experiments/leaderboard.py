"""The leaderboard: one row for trainings that differ only in their seed, sorted by a metric."""

import re
import statistics as descriptive
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline import headline
from pipeline.errors import PipelineError
from pipeline.experiments import statistics
from pipeline.experiments.configuration import SEED, configuration
from pipeline.experiments.repository import Revision
from pipeline.experiments.results import Results

NUMBER = re.compile(r"[-_.]?\d+$")


@dataclass(frozen=True)
class Member:
    """One result: its revision, its record, and the names of other revisions with the same result."""

    revision: Revision
    record: Results
    aliases: tuple[str, ...] = ()

    @property
    def seed(self) -> Any:
        """The seed of the training."""
        return self.record.params[SEED]

    @cached_property
    def params(self) -> dict[str, Any]:
        """The parameters that separate rows."""
        return configuration(self.record)

    @property
    def identity(self) -> str:
        """The parameters that separate rows, the seed, and the hashes of the network and its predictions."""
        paths, outputs = self.record.paths, self.record.outputs
        decided = outputs[paths["train"]["out"]], outputs[paths["evaluate"]["predictions"]]
        return repr((sorted(self.params.items()), self.seed, decided))


@dataclass(frozen=True)
class Row:
    """One row of the leaderboard: trainings that differ only in their seed.

    Attributes:
        name: of the experiment, or the common prefix of several.
        members: in the order of their seeds, which are all different.
        best, on_front: whether the row is best by the sort metric, and on the front of validation accuracy and MACs.
    """

    name: str
    members: tuple[Member, ...]
    best: bool = False
    on_front: bool = False

    @cached_property
    def params(self) -> dict[str, Any]:
        """Parameters without the seed, the source of the data and the sections inspect and export."""
        return self.members[0].params

    def has(self, revision: Revision) -> bool:
        """Return whether one of the members is the result of a revision."""
        return any(member.revision.sha == revision.sha or revision.name in member.aliases for member in self.members)

    def values(self, metric: str) -> list[float]:
        """Return a metric of every member that has it."""
        found = (member.record.metrics.get(metric) for member in self.members)
        return [value for value in found if isinstance(value, int | float)]

    def mean(self, metric: str) -> float | None:
        """Return a metric's mean over the members, None if none has it."""
        values = self.values(metric)
        return descriptive.fmean(values) if values else None

    @property
    def seconds(self) -> float:
        """Mean duration of all stages of one seed."""
        total = 0.0
        for member in self.members:
            total += sum(value for key, value in member.record.metrics.items() if key.endswith("/stage_seconds"))
        return total / len(self.members)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the validation accuracy: Student's over seeds; of one training, Wilson's over images."""
        values = self.values("val/accuracy")
        if len(values) > 1:
            return statistics.mean_interval(values)
        images = self.params.get("data.val_images")
        return statistics.share_interval(values[0], images) if values and images else None

    def spread(self, metric: str) -> float | None:
        """Return a metric's standard deviation over the members (n - 1), None for fewer than two."""
        values = self.values(metric)
        return descriptive.stdev(values) if len(values) > 1 else None


def group(members: Iterable[Member]) -> list[Row]:
    """Group trainings that differ only in their seed into one row.

    Different results with the same seed (other code, another machine) are separate rows.
    """
    groups: dict[str, dict[Any, Member]] = {}
    for member in members:
        kind = sorted(member.params.items())
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
    """Return the parameters whose values differ between rows that have them."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.params.items():
            found.setdefault(key, set()).add(repr(value))
    return tuple(key for key, values in found.items() if len(values) > 1)


def split_names(rows: Iterable[Row]) -> list[str]:
    """Return one line for each set of experiments that look like seeds of one configuration but are several rows.

    These are experiments whose names differ only in the number at the end ("relu-0", "relu-1") and whose rows have
    different seeds. In a grid, which has such names, too, all rows have the same seeds.
    """
    found: dict[str, dict[int, tuple[Row, list[Member]]]] = {}
    for row in rows:
        for member in row.members:
            name = member.revision.experiment or ""
            stem = NUMBER.sub("", name)
            if stem not in ("", name):
                found.setdefault(stem, {}).setdefault(id(row), (row, []))[1].append(member)
    lines = []
    for parts in found.values():
        seeds = {frozenset(member.seed for member in members) for _, members in parts.values()}
        keys = differing([row for row, _ in parts.values()])
        if len(seeds) > 1 and keys:
            names = sorted(member.revision.name for _, members in parts.values() for member in members)
            lines.append(f"{', '.join(names)} differ in more than the seed: {', '.join(keys)}")
    return lines


def rank(rows: Sequence[Row], sort: str) -> list[Row]:
    """Return rows sorted by a metric, best first, with the best row and the Pareto front marked.

    Raises:
        PipelineError: no row has that metric.
    """
    known = {key for row in rows for member in row.members for key in member.record.metrics}
    if not any(row.mean(sort) is not None for row in rows):
        close = sorted(key for key in known if key.split("/")[-1] == sort.split("/")[-1]) or ["val/accuracy"]
        raise PipelineError(f"--sort: found {sort}, expected a numeric metric; for instance {close[0]}")
    sign = 1 if headline.smaller_is_better(sort) else -1
    worst = float("inf")
    rows = sorted(rows, key=lambda row: worst if (value := row.mean(sort)) is None else sign * value)
    cost, gain = ([row.mean(metric) or 0.0 for row in rows] for metric in ("model/macs", "val/accuracy"))
    front = statistics.pareto(cost, gain)
    return [replace(row, best=number == 0, on_front=front[number]) for number, row in enumerate(rows)]


def _common_name(names: Sequence[str]) -> str:
    """Return the common prefix of names ("relu" of relu-0 and relu-1), or the first name and the number of others."""
    if len(names) == 1:
        return names[0]
    shared = 0
    while len({name[: shared + 1] for name in names}) == 1 and shared < len(names[0]):
        shared += 1
    return names[0][:shared].rstrip("-_.") or f"{names[0]} and {len(names) - 1} more"
