"""Results of a study's experiments: one table of parameters and metrics, and any of their output files."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pandas as pd

from pipeline.config.schema import Params
from pipeline.errors import ResultsError
from pipeline.experiments.repository import Repository
from pipeline.studies.existing import Found
from pipeline.studies.plan import Plan

Measured = TypeVar("Measured")


class Collected:
    """The results of a study.

    Attributes:
        rows: one row for each experiment, whose name is the index: "variant", "seed", "diverged" (the reason, or ""),
            all parameters and all metrics by their full names; metrics of a training that diverged are NaN.
    """

    def __init__(
        self, repository: Repository, plan: Plan, found: Mapping[str, Found], diverged: Mapping[str, str]
    ) -> None:
        self.repository, self.plan, self.found = repository, plan, found
        rows = []
        for planned in plan.experiments:
            metrics = found[planned.name].record.metrics if planned.name in found else {}
            own = {"variant": planned.variant, "seed": planned.seed, "diverged": diverged.get(planned.name, "")}
            rows.append({**planned.settings.effective(), **metrics, **own})
        self.rows = pd.DataFrame(rows, index=[planned.name for planned in plan.experiments])
        self._measured: dict[tuple[str, str], Any] = {}

    @property
    def seeds(self) -> list[int]:
        """The seeds of the experiments."""
        return list(dict.fromkeys(self.rows["seed"]))

    def without(self, seed: int) -> "Collected":
        """Return the results of the other seeds, with the same memory of what was measured."""
        others = copy.copy(self)
        others.rows = self.rows[self.rows["seed"] != seed]
        others.found = {name: found for name, found in self.found.items() if name in others.rows.index}
        return others

    def measured(self, what: str, name: str, measure: Callable[[], Measured]) -> Measured:
        """Return a measurement of an experiment; `measure` is called the first time only."""
        if (what, name) not in self._measured:
            self._measured[what, name] = measure()
        found: Measured = self._measured[what, name]
        return found

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants in the order of the study's file."""
        return self.plan.variants

    def settings(self, variant: str) -> Params:
        """Return a variant's parameters, with its first seed."""
        return self.plan.settings(variant)

    def of(self, variant: str) -> pd.DataFrame:
        """Return the rows of a variant."""
        return self.rows[self.rows["variant"] == variant]

    def values(self, variant: str, metric: str) -> list[float]:
        """Return a metric of a variant's experiments, by seed, without those that diverged."""
        if metric not in self.rows:
            return []
        return [float(value) for value in self.of(variant)[metric] if not pd.isna(value)]

    def mean(self, variant: str, metric: str) -> float:
        """Return the mean of a metric over a variant's seeds, NaN if there is none."""
        values = self.values(variant, metric)
        return sum(values) / len(values) if values else math.nan

    def read(self, name: str, path: str) -> bytes:
        """Return an output file of an experiment from git, DVC's cache or a remote.

        Args:
            name: of the experiment, as in the index of `rows`.
            path: relative to the repository, e.g. "model/history.csv".

        Raises:
            ResultsError: its training diverged, or neither git nor DVC has the file.
        """
        if name not in self.found:
            raise ResultsError(f"{name}: its training diverged, so it left no {path}")
        found = self.found[name]
        return self.repository.output(found.revision, found.record, path)

    def history(self, name: str) -> pd.DataFrame:
        """Return the epochs of an experiment's training: "epoch" (from 1), "val/accuracy" and so on.

        Raises:
            ResultsError: its training diverged, or neither git nor DVC has the file.
        """
        if name not in self.found:
            raise ResultsError(f"{name}: its training diverged, so it left no history")
        found = self.found[name]
        return pd.DataFrame(self.repository.history(found.revision, found.record))
