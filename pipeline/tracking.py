"""The only module that imports mlflow: live curves from train, and `publish`, which makes a run whole from files.

git and DVC hold the truth; an MLflow run is a view of it. A run is found by its content (a SHA-256 over parameters,
data and weights) and the name of the experiment, so publishing twice adds nothing.
"""

import hashlib
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from pipeline import files
from pipeline.errors import TrackingError
from pipeline.params import TrackingParams

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DATABASE, ARTIFACTS, LOCK = "mlflow.db", "mlartifacts", ".mlflow.lock"

KIND = "custom_model_development"
"""Tells MLflow's pages to show an experiment as model training, not as development of language-model apps."""

# Tags that runs are found by.
EXPERIMENT_TAG = "DVC_EXP_NAME"
TRAINING_TAG = "training_sha256"
CONTENT_TAG = "content_sha256"
COMPLETE_TAG = "complete"
BASELINE_TAG = "DVC_EXP_BASELINE_REV"

# Tags of a search's runs.
PARENT_TAG = "mlflow.parentRunId"
STUDY_TAG = "study"
PRUNED_TAG = "pruned"

LIVE_TIMEOUT_SECONDS, LIVE_WAIT_SECONDS = 10, 30
"""How long one request of a live curve may take, and how long train waits at its end for those still under way."""


@dataclass(frozen=True)
class Results:
    """Everything a run consists of, read from a pipeline's files.

    Attributes:
        params: flat, only those that had an effect.
        metrics: flat, numbers only; names are DVC's.
        history: one row an epoch, with a column "epoch" counted from 1.
        artifacts: file -> folder in the run.
        tags: further tags.
        dataset_name, dataset_hash: what it is and DVC's hash of the processed arrays.
        dataset_profile: further facts on the dataset.
        training, weights: SHA-256 of what decides the training, and of the weights it ended with.
        onnx, card: the exported model and its description.
    """

    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    history: Sequence[Mapping[Any, Any]]
    artifacts: Mapping[Path, str]
    tags: Mapping[str, str]
    dataset_name: str
    dataset_hash: str
    dataset_profile: Mapping[str, Any]
    training: str
    weights: str
    onnx: Path
    card: str

    @property
    def content(self) -> str:
        """SHA-256 over parameters, data and weights: equal content is one result, whenever it was computed."""
        parts = [self.params, self.dataset_hash, self.weights]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Published:
    """Where a run is: its name and id, the version of the registered model, and whether it was there already."""

    name: str
    run_id: str
    model_version: str
    existed: bool


class LiveRun:
    """Sends each epoch's metrics as it ends, from a thread of its own: training never waits for MLflow.

    Nor does it fail with it. Whatever goes wrong is one warning, and `publish` completes the run later.
    """

    def __init__(self, root: Path, params: TrackingParams, training: str, arch: str) -> None:
        self.rows: queue.Queue[Mapping[str, float] | None] = queue.Queue()
        self.status = "FAILED"
        # A server that is away is to cost training nothing; publish has the user's own patience.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(LIVE_TIMEOUT_SECONDS))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self.thread = threading.Thread(target=self._send_all, args=(root, params, training, arch), daemon=True)
        self.thread.start()

    def log(self, row: Mapping[str, float]) -> None:
        """Hand over one epoch: "epoch" (from 1) and its metrics."""
        self.rows.put(row)

    def __enter__(self) -> "LiveRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.status = "RUNNING" if kind is None else "FAILED"  # publish ends a run whose training succeeded
        self.rows.put(None)
        self.thread.join(LIVE_WAIT_SECONDS)

    def _send_all(self, root: Path, params: TrackingParams, training: str, arch: str) -> None:
        try:
            client, experiment = connect(root, params)
            run = _unfinished(client, experiment, training) or _create(client, experiment, training, arch)
            client.update_run(run.info.run_id, status="RUNNING")
            while (row := self.rows.get()) is not None:
                _log_history(client, run, [row])
            client.update_run(run.info.run_id, status=self.status)
        except Exception as error:  # a store may fail in any way; training must survive all of them
            print(
                f"warning: MLflow: {_short(error)}; training goes on, the track stage completes the run",
                file=sys.stderr,
                flush=True,
            )


def publish(root: Path, params: TrackingParams, results: Results) -> Published:
    """Make the run of these results whole: find or create it, then add what it lacks.

    Args:
        root: the user's repository, beside whose files the default store lives.

    Raises:
        TrackingError: the store cannot be reached or refuses; calling again later completes the run.
    """
    with _one_line_errors(root):
        client, experiment = connect(root, params)
        run = _by_content(client, experiment, results.content)
        if run and run.data.tags.get(COMPLETE_TAG) == "true":
            return Published(run.info.run_name, run.info.run_id, _version(client, params.model, run), existed=True)
        run = run or _unfinished(client, experiment, results.training)
        run = run or _create(client, experiment, results.training, str(results.params["model.arch"]))
        _complete(client, run, params, results)
        return Published(run.info.run_name, run.info.run_id, _version(client, params.model, run), existed=False)


def connect(root: Path, params: TrackingParams) -> tuple["MlflowClient", str]:
    """Return a client and the id of the experiment, both made if they don't exist.

    The store is `MLFLOW_TRACKING_URI`, else sqlite at the repository's root with an absolute artifact folder beside
    it, so that runs of DVC's temporary workspaces keep their artifacts when the workspace is deleted.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri(root)
    mlflow.set_tracking_uri(uri)
    # Processes that start together on a fresh store would race in the database's schema migration.
    with filelock.FileLock(root / LOCK):
        client = mlflow.MlflowClient(uri)
        found = client.get_experiment_by_name(params.experiment)
        if found:
            return client, found.experiment_id
        remote = uri.startswith(("http://", "https://", "databricks"))  # such a server knows where artifacts go
        location = None if remote else (root / ARTIFACTS / params.experiment).as_uri()
        return client, client.create_experiment(params.experiment, location, {"mlflow.experimentKind": KIND})


def tracking_uri(root: Path) -> str:
    """Return the address of the MLflow store in use."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / DATABASE}"


def _complete(client: "MlflowClient", run: "Run", params: TrackingParams, results: Results) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    run_id, now = run.info.run_id, int(time.time() * 1000)
    tags = {
        **_environment_tags(),
        **results.tags,
        CONTENT_TAG: results.content,
        TRAINING_TAG: results.training,
        "mlflow.note.content": results.card,
    }
    client.log_batch(
        run_id,
        params=[Param(key, _text(value)) for key, value in results.params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    _log_history(client, run, results.history)
    curves = {key for row in results.history for key in row}
    last = int(results.history[-1]["epoch"])
    finals = [
        Metric(key, value, now, last)
        for key, value in results.metrics.items()
        if key not in curves and key not in run.data.metrics
    ]
    client.log_batch(run_id, metrics=finals)
    for path, folder in results.artifacts.items():
        client.log_artifact(run_id, str(path), folder or None)
    if not run.inputs or not run.inputs.dataset_inputs:
        profile = json.dumps(results.dataset_profile)
        dataset = Dataset(
            results.dataset_name,
            results.dataset_hash[:36],
            "dvc",
            json.dumps({"dvc_hash": results.dataset_hash}),
            profile=profile,
        )
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    if not _version(client, params.model, run):
        _register(client, run, params.model, results)
    client.set_terminated(run_id, "FINISHED")
    client.set_tag(run_id, COMPLETE_TAG, "true")


def _register(client: "MlflowClient", run: "Run", name: str, results: Results) -> None:
    """Log the ONNX model to a run and register it as a new version."""
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load(results.onnx)
    images, probabilities = graph.graph.input[0], graph.graph.output[0]
    shape = [dimension.dim_value or -1 for dimension in images.type.tensor_type.shape.dim]
    classes = probabilities.type.tensor_type.shape.dim[1].dim_value
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), shape, images.name)]),
        Schema([TensorSpec(np.dtype("float32"), [-1, classes], probabilities.name)]),
    )
    example = {images.name: np.zeros((1, *shape[1:]), np.uint8)}
    with mlflow.start_run(run_id=run.info.run_id):
        info = mlflow.onnx.log_model(
            graph,
            name="model",
            signature=signature,
            input_example=example,
            save_as_external_data=False,
            pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "onnx", "onnxruntime")],
        )
    if not any(model.name == name for model in client.search_registered_models(f"name = '{name}'")):
        client.create_registered_model(name)
    tags = {CONTENT_TAG: results.content, "onnx_sha256": files.sha256(results.onnx)}
    client.create_model_version(
        name, info.model_uri, run.info.run_id, tags=tags, description=results.card, model_id=info.model_id
    )


def _log_history(client: "MlflowClient", run: "Run", rows: Sequence[Mapping[Any, Any]]) -> None:
    """Add the epochs that a run lacks, and no other: neither a gap nor a repeat in its curves."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    logged: dict[str, set[int]] = {}
    metrics = []
    for row in rows:
        step = int(row["epoch"])
        for key in row.keys() - {"epoch"}:
            if key not in logged:
                logged[key] = {metric.step for metric in client.get_metric_history(run.info.run_id, key)}
            if step not in logged[key]:
                metrics.append(Metric(key, float(row[key]), now, step))
    for start in range(0, len(metrics), 1000):  # what one request may carry
        client.log_batch(run.info.run_id, metrics=metrics[start : start + 1000])


def _create(client: "MlflowClient", experiment: str, training: str, arch: str) -> "Run":
    tags = {**_environment_tags(), TRAINING_TAG: training}
    return client.create_run(experiment, tags=tags, run_name=_experiment_name() or f"{arch}-{training[:7]}")


def _by_content(client: "MlflowClient", experiment: str, content: str) -> "Run | None":
    return _first(client, experiment, f"tags.{CONTENT_TAG} = '{content}'")


def _unfinished(client: "MlflowClient", experiment: str, training: str) -> "Run | None":
    """Return the run that train opened for this very training and nothing has completed yet."""
    return _first(client, experiment, f"tags.{TRAINING_TAG} = '{training}' and attributes.status != 'FINISHED'")


def _first(client: "MlflowClient", experiment: str, condition: str) -> "Run | None":
    """Return the oldest run of the present experiment (or of none, outside `dvc exp run`) that meets a condition."""
    runs = client.search_runs([experiment], condition, order_by=["attributes.start_time ASC"])
    name = _experiment_name()
    return next((run for run in runs if run.data.tags.get(EXPERIMENT_TAG) == name), None)


def _version(client: "MlflowClient", model: str, run: "Run") -> str:
    versions = client.search_model_versions(f"name = '{model}' and run_id = '{run.info.run_id}'")
    return str(versions[0].version) if versions else ""


def _experiment_name() -> str | None:
    return os.environ.get(EXPERIMENT_TAG) or None


def _environment_tags() -> dict[str, str]:
    """Return what DVC says about the experiment, and the versions of what made the run."""
    tags = {key: os.environ[key] for key in (EXPERIMENT_TAG, BASELINE_TAG) if os.environ.get(key)}
    if BASELINE_TAG in tags:
        tags["mlflow.source.git.commit"] = tags[BASELINE_TAG]  # MLflow's own tag means the commit one started from
    tags["mlflow.source.name"] = "dvc.yaml"
    return tags | {f"version.{package}": version(package) for package in ("dvc", "mlflow", "onnxruntime")}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


@contextmanager
def _one_line_errors(root: Path) -> Iterator[None]:
    import mlflow.exceptions
    import requests
    import sqlalchemy.exc

    try:
        yield
    except (mlflow.exceptions.MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise TrackingError(
            f"MLflow store {tracking_uri(root)}: {_short(error)}; nothing is lost: when it answers again, "
            "run dvc repro track"
        ) from None


class StudyRun:
    """The run of a search: it says what was searched and what was best, and the runs of the trials are its children.

    A store that fails in the middle of a search costs a warning: the trials' results are in git.
    """

    def __init__(self, root: Path, params: TrackingParams, name: str, run_id: str | None) -> None:
        """Open the run of an earlier start again, or make one.

        Raises:
            TrackingError: the store cannot be reached.
        """
        self.lock = threading.Lock()
        with _one_line_errors(root):
            self.client, self.experiment = connect(root, params)
            self.run_id = run_id if run_id and self._exists(run_id) else self._new(name)
            self.client.update_run(self.run_id, status="RUNNING")

    def describe(self, space: Mapping[str, Any]) -> None:
        """Log the space as parameters, one for each parameter that varies."""
        from mlflow.entities import Param

        described = [Param(f"space.{key}", _text(spec)) for key, spec in space.items()]
        self._try(lambda: self.client.log_batch(self.run_id, params=described))

    def adopt(self, experiment: str) -> None:
        """Make the runs of a DVC experiment children of this one."""
        self._try(lambda: self._adopt(experiment))

    def prune(self, experiment: str, reason: str) -> None:
        """Make the run that a stopped training left a child, and end it as killed."""
        self._try(lambda: self._prune(experiment, reason))

    def best(self, experiment: str, value: float, values: Mapping[str, Any], trials: int) -> None:
        """Note the best experiment of the first `trials` trials, its val/accuracy and its parameters."""
        self._try(lambda: self._best(experiment, value, values, trials))

    def end(self, status: str) -> None:
        """Set the status: "FINISHED", or "KILLED" if the search is to go on later."""
        self._try(lambda: self.client.set_terminated(self.run_id, status))

    def _try(self, action: Callable[[], object]) -> None:
        try:
            with self.lock:
                action()
        except Exception as error:  # a store may fail in any way; a search must survive all of them
            print(f"warning: MLflow: {_short(error)}; the search goes on", file=sys.stderr, flush=True)

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException:  # the store is another one than it was
            return False

    def _new(self, name: str) -> str:
        tags = {**_environment_tags(), STUDY_TAG: name}
        return str(self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id)

    def _of(self, experiment: str) -> list["Run"]:
        return list(self.client.search_runs([self.experiment], f"tags.{EXPERIMENT_TAG} = '{experiment}'"))

    def _adopt(self, experiment: str) -> None:
        for run in self._of(experiment):
            self.client.set_tag(run.info.run_id, PARENT_TAG, self.run_id)

    def _prune(self, experiment: str, reason: str) -> None:
        self._adopt(experiment)
        for run in self._of(experiment):
            if run.info.status != "FINISHED":
                self.client.set_tag(run.info.run_id, PRUNED_TAG, reason)
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _best(self, experiment: str, value: float, values: Mapping[str, Any], trials: int) -> None:
        from mlflow.entities import Metric, RunTag

        tags = {"best.experiment": experiment, **{f"best.{key}": _text(found) for key, found in values.items()}}
        metrics = [Metric("best/val/accuracy", value, int(time.time() * 1000), trials)]
        self.client.log_batch(self.run_id, metrics, tags=[RunTag(key, text) for key, text in tags.items()])
