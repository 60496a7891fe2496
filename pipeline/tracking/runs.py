"""One MLflow run for each result, identified by its content and experiment name: how it is found and created."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.experiments.results import Results
from pipeline.tracking.owner import Owner

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Tags that identify runs, besides those of their owner.
TRAINING_TAG = "training_sha256"
CONTENT_TAG = "content_sha256"
COMPLETE_TAG = "complete"
MISSING_TAG = "missing"
"""Tag with the files that neither DVC's cache nor a remote had when the run was created."""

NAME_TAG = "mlflow.runName"
PARENT_TAG = "mlflow.parentRunId"


def find(client: "MlflowClient", experiment: str, record: Results, owner: Owner) -> "Run | None":
    """Return the run with these results, or else the one that train opened for them."""
    same = search(client, experiment, f"tags.{CONTENT_TAG} = '{record.content}'")
    if found := shown(same, record, owner):
        return found
    return opened(of_training(client, experiment, record.training, owner), record, owner)


def shown(known: Sequence["Run"], record: Results, owner: Owner) -> "Run | None":
    """Return the run with these results among several, preferably a complete one.

    Results without an experiment's name share the run of an experiment with the same content.
    """
    same = [run for run in known if run.data.tags.get(CONTENT_TAG) == record.content]
    owned = [run for run in same if owner.owns(run)]
    return max(owned or ([] if owner.experiment else same), key=is_complete, default=None)


def opened(known: Sequence["Run"], record: Results, owner: Owner) -> "Run | None":
    """Return the incomplete run that train opened for these results, among several."""
    candidates = (run for run in known if run.data.tags.get(TRAINING_TAG) == record.training and owner.owns(run))
    return next((run for run in candidates if not is_complete(run)), None)


def of_training(client: "MlflowClient", experiment: str, training: str, owner: Owner) -> list["Run"]:
    """Return an owner's runs of a training, oldest first."""
    return [run for run in search(client, experiment, f"tags.{TRAINING_TAG} = '{training}'") if owner.owns(run)]


def search(client: "MlflowClient", experiment: str, condition: str = "") -> list["Run"]:
    """Return all runs of an MLflow experiment that meet a condition, oldest first."""
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], condition, order_by=["start_time ASC"], page_token=token)
        found += page
        if not (token := page.token):
            return found


def is_complete(run: "Run") -> bool:
    """Return whether a run was completed, with all files that were available."""
    return run.data.tags.get(COMPLETE_TAG) == "true"


def create(
    client: "MlflowClient", experiment: str, training: str, arch: str, owner: Owner, record: Results | None = None
) -> "Run":
    """Create a run; its start time is that of the record, if there is one."""
    return client.create_run(
        experiment,
        start_time=milliseconds(record.started) if record else None,
        tags={**owner.tags, TRAINING_TAG: training},
        run_name=owner.experiment or f"{arch}-{training[:7]}",
    )


def log_history(
    client: "MlflowClient", run: "Run", rows: Sequence[Mapping[str, float]], span: tuple[int, int] | None = None
) -> None:
    """Log the epochs that a run lacks, so that its curves have neither gaps nor duplicates.

    Args:
        rows: "epoch" (from 1) and its metrics, one per epoch.
        span: first and last time in milliseconds since 1970, over which the epochs are spread; None means now.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    logged: dict[str, set[int]] = {}
    metrics = []
    for number, row in enumerate(rows, start=1):
        step = int(row["epoch"])
        when = span[0] + (span[1] - span[0]) * number // len(rows) if span else now
        for key in row.keys() - {"epoch"}:
            if key not in logged:
                logged[key] = {metric.step for metric in client.get_metric_history(run.info.run_id, key)}
            if step not in logged[key]:
                metrics.append(Metric(key, float(row[key]), when, step))
    for start in range(0, len(metrics), 1000):  # the limit of one request
        client.log_batch(run.info.run_id, metrics=metrics[start : start + 1000])


def model_version(client: "MlflowClient", model: str, run: "Run") -> str:
    """Return the version of the registered model of a run, "" if there is none."""
    versions = client.search_model_versions(f"name = '{model}' and run_id = '{run.info.run_id}'")
    return str(versions[0].version) if versions else ""


def milliseconds(moment: datetime) -> int:
    """Return a time as MLflow has it, in milliseconds since 1970."""
    return int(moment.timestamp() * 1000)
