"""Seeds of one configuration as children of one parent run, which has mean, spread and interval of their metrics.

A parent is derived from its children alone: it is made anew whenever one of them is completed or gone, so that workers
which finish at the same moment, in any order, leave the same parent.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from pipeline.experiments.configuration import SEED, configuration, configuration_hash, short_names
from pipeline.experiments.results import Results, text_of
from pipeline.headline import HEADLINE
from pipeline.tracking import runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CONFIGURATION_TAG = "configuration"
"""Tag of a child: the hash of all that separates rows of the leaderboard."""

SECTIONS = ("model", "optimizer", "train", "augment", "data")
"""The sections of params.yaml in the order in which a configuration's name has what differs."""

KIND_TAG, KIND = "kind", "configuration"
"""Tag of a parent, by which the runs table shows parents only."""

PARENT_OF_TAG = "configuration_of"
"""Tag of a parent: the `CONFIGURATION_TAG` of its children."""

GONE_TAG = "dvc_experiment"
"""Tag with the value "gone" of a run whose experiment has been removed or replaced; the run is kept."""


@dataclass(frozen=True)
class Spread:
    """A metric over seeds.

    Attributes:
        deviation: standard deviation (n - 1); 0 for one seed.
        interval: 95 % interval of the mean by Student's t; None for one seed.
    """

    count: int
    mean: float
    deviation: float = 0.0
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        mean = statistics.fmean(values)
        if len(values) == 1:
            return cls(1, mean)
        from pipeline.experiments.statistics import mean_interval  # scipy takes a second to import

        return cls(len(values), mean, statistics.stdev(values), mean_interval(values))


def join(root: Path, client: "MlflowClient", run: "Run", record: Results, differing: Mapping[str, str]) -> None:
    """Make a completed run a child of its configuration's parent, and update the parent.

    Args:
        root: the user's repository.
        differing: what the parameters differ in from params.yaml, which names a new parent.
    """
    experiment, shared = run.info.experiment_id, configuration_hash(record)
    client.set_tag(run.info.run_id, CONFIGURATION_TAG, shared)
    with filelock.FileLock(root / store.LOCK):  # of this machine; `_update` settles races with other machines
        if _parent(client, experiment, shared) is None:
            _create(client, experiment, shared, record, differing)
        _update(client, experiment, shared)


def _create(
    client: "MlflowClient", experiment: str, shared: str, record: Results, differing: Mapping[str, str]
) -> None:
    from mlflow.entities import Param

    decisive = configuration(record)
    shown = [key for key in differing if key in decisive and key != "model.arch"]
    named = {key: differing[key] for key in sorted(shown, key=_rank)}
    name = " ".join([record.arch, *map("=".join, zip(short_names(tuple(named)), named.values(), strict=True))])
    tags = {KIND_TAG: KIND, PARENT_OF_TAG: shared, "dataset": str(record.metrics["data/name"])}
    run = client.create_run(experiment, start_time=runs.milliseconds(record.started), tags=tags, run_name=name[:250])
    client.log_batch(run.info.run_id, params=[Param(key, text_of(value)) for key, value in decisive.items()])


def _rank(key: str) -> int:
    """Return the place of a parameter in a name: the network first, as tables cut names off."""
    section = key.partition(".")[0]
    return SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)


def leave(root: Path, client: "MlflowClient", run: "Run") -> None:
    """Update the parent of a run that is gone."""
    if configuration := run.data.tags.get(CONFIGURATION_TAG):
        with filelock.FileLock(root / store.LOCK):
            _update(client, run.info.experiment_id, configuration)


def adopt(client: "MlflowClient", run: "Run", study: str) -> None:
    """Make a run, or the parent of its configuration unless another study has it, a child of a study's run."""
    child = run
    if is_grouped(run):
        child = client.get_run(run.data.tags[runs.PARENT_TAG])
    if runs.PARENT_TAG not in child.data.tags:
        client.set_tag(child.info.run_id, runs.PARENT_TAG, study)


def is_grouped(run: "Run") -> bool:
    """Return whether a run is a child of its configuration's parent."""
    return CONFIGURATION_TAG in run.data.tags and runs.PARENT_TAG in run.data.tags


def is_parent(run: "Run") -> bool:
    """Return whether a run is the parent of a configuration."""
    return run.data.tags.get(KIND_TAG) == KIND


def _update(client: "MlflowClient", experiment: str, shared: str) -> None:
    """Write the parent from its children, again if their number has changed meanwhile."""
    written = -1
    while len(children := _children(client, experiment, shared)) != written:
        written = len(children)
        parent = _parent(client, experiment, shared)
        if parent is None:  # deleted by the user; sync creates it again
            return
        for child in children:
            former = child.data.tags.get(runs.PARENT_TAG)
            if former not in (None, parent.info.run_id) and runs.PARENT_TAG not in parent.data.tags:
                client.set_tag(parent.info.run_id, runs.PARENT_TAG, former)  # the run of a search or study
            if former != parent.info.run_id:
                client.set_tag(child.info.run_id, runs.PARENT_TAG, parent.info.run_id)
        _write(client, parent, children)


def _parent(client: "MlflowClient", experiment: str, shared: str) -> "Run | None":
    """Return the parent of a configuration; of several, which machines created at once, keep the oldest."""
    found = runs.search(client, experiment, f"tags.{PARENT_OF_TAG} = '{shared}'")
    for double in found[1:]:
        client.delete_run(double.info.run_id)
    return found[0] if found else None


def _children(client: "MlflowClient", experiment: str, shared: str) -> list["Run"]:
    """Return the completed runs of a configuration whose experiments exist: for each seed the newest."""
    found = runs.search(client, experiment, f"tags.{CONFIGURATION_TAG} = '{shared}'")
    alive = [run for run in found if runs.is_complete(run) and run.data.tags.get(GONE_TAG) != "gone"]
    return list({run.data.params[SEED]: run for run in alive}.values())


def _write(client: "MlflowClient", parent: "Run", children: Sequence["Run"]) -> None:
    from mlflow.entities import Metric, RunTag

    spreads = spreads_of([run.data.metrics for run in children])
    values = {"n": float(len(children)), **{name: spread.mean for name, spread in spreads.items()}}
    for name in ("val/accuracy", "test/accuracy"):
        if name in spreads:
            values[f"{name}_sd"] = spreads[name].deviation
    if (selected := spreads.get("val/accuracy")) and selected.interval:
        values["val/accuracy_low"], values["val/accuracy_high"] = selected.interval
    run_id = parent.info.run_id
    known = [metric.timestamp for name in values for metric in client.get_metric_history(run_id, name)[-1:]]
    now = max([int(time.time() * 1000), *(moment + 1 for moment in known)])  # the newest value is the one shown
    client.log_batch(
        run_id,
        metrics=[Metric(key, round(value, 6), now, 0) for key, value in values.items()],
        tags=[RunTag("mlflow.note.content", describe(spreads, children))],
    )
    client.set_terminated(run_id, "FINISHED", end_time=max((run.info.end_time for run in children), default=None))


def spreads_of(runs_metrics: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of each headline metric over the metrics of several runs."""
    found = {name: [metrics[name] for metrics in runs_metrics if name in metrics] for name in HEADLINE}
    return {name: Spread.of(values) for name, values in found.items() if values}


def describe(spreads: Mapping[str, Spread], children: Sequence["Run"]) -> str:
    """Return the description of a parent: its metrics over the seeds, and the runs of the seeds."""
    lines = ["| metric | mean | sd | 95 % interval | n |", "| --- | --- | --- | --- | --- |"]
    for key, spread in spreads.items():
        label, form = HEADLINE[key]
        form = form.replace("{:,}", "{:,.0f}")
        cells = [form.format(spread.mean), "", ""]
        if spread.interval:
            cells[1:] = [form.format(spread.deviation), " to ".join(map(form.format, spread.interval))]
        lines.append(f"| {label} | {' | '.join(cells)} | {spread.count} |")
    seeds = ", ".join(
        f"[{run.data.params[SEED]}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning)"
        for run in sorted(children, key=lambda run: int(run.data.params[SEED]))
    )
    return "\n".join([*lines, "", f"Seeds: {seeds}", ""])
