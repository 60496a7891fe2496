"""One MLflow run for each result, identified by its content and experiment name, and completed from files.

Publishing is idempotent; publishing again after an error of the store adds what is missing.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.experiments import results
from pipeline.experiments.results import Results, text_of
from pipeline.tracking import store
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
MACHINE = ("device", "device_name", "threads", "precision", "platform")
VERSIONS = ("python", "torch", "dvc", "mlflow")


@dataclass(frozen=True)
class Published:
    """A run: its name and id, the version of its registered model ("" for none), whether it existed before."""

    name: str
    run_id: str
    model_version: str
    existed: bool


def publish(root: Path, settings: Mapping[str, Any], record: Results, owner: Owner, folder: Path) -> Published:
    """Find or create the run of these results and complete it.

    Args:
        root: the user's repository, with the default store.
        settings: "experiment" and "model" of params.yaml's `tracking`.
        folder: with the files of the record; the run's tag "missing" lists absent ones.

    Raises:
        TrackingError: the store cannot be reached or rejects a request; calling again later completes the run.
    """
    with store.errors(root):
        client, experiment = store.experiment(root, settings["experiment"])
        model = settings["model"]
        run = find(client, experiment, record, owner)
        existed = run is not None and is_complete(run) and MISSING_TAG not in run.data.tags
        if run is None or not existed:
            run = run or create(client, experiment, record.training, record.arch, owner, record)
            _complete(client, run, model, record, owner, folder)
        return Published(run.info.run_name, run.info.run_id, model_version(client, model, run), existed)


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
        start_time=_milliseconds(record.started) if record else None,
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


def artifacts(record: Results) -> dict[str, str]:
    """Return path -> folder in the run, for all artifacts of a run."""
    path = record.paths
    shown = {path["train"]["params"]: "", path["train"]["history"]: "", path["train"]["layers"]: ""}
    shown |= {path["evaluate"][name]: "" for name in ("predictions", "classes", "card")}
    shown |= {path["evaluate"]["robustness"]: "robustness", path["evaluate"]["figures-dir"]: "figures"}
    shown |= {path["preprocess"]["preview"]: "figures"}
    shown |= {stage["details"]: "details" for stage in path.values() if "details" in stage}
    return shown | ({path["inspect"]["out"]: "inspection"} if "inspect" in path else {})


def needed(record: Results) -> list[str]:
    """Return the paths that `publish` reads below its folder."""
    return [*artifacts(record), *filter(None, [exported(record)])]


def exported(record: Results) -> str | None:
    """Return the path of the ONNX file, None if the export stage did not run."""
    return record.paths["export"]["out"] if "export" in record.paths else None


def model_version(client: "MlflowClient", model: str, run: "Run") -> str:
    """Return the version of the registered model of a run, "" if there is none."""
    versions = client.search_model_versions(f"name = '{model}' and run_id = '{run.info.run_id}'")
    return str(versions[0].version) if versions else ""


def _complete(client: "MlflowClient", run: "Run", model: str, record: Results, owner: Owner, folder: Path) -> None:
    from mlflow.entities import Metric, Param, RunTag

    run_id = run.info.run_id
    began, ended = _milliseconds(record.started), _milliseconds(record.ended)
    missing = [path for path in needed(record) if not (folder / path).exists()]
    card = folder / record.paths["evaluate"]["card"]
    tags = {**_tags(record), **owner.tags, CONTENT_TAG: record.content, TRAINING_TAG: record.training}
    if card.exists():
        tags["mlflow.note.content"] = card.read_text(encoding="utf-8")
    client.log_batch(
        run_id,
        params=[Param(key, text_of(value)) for key, value in record.params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    curves_file = folder / record.paths["train"]["history"]
    history = results.parse_history(curves_file.read_bytes()) if curves_file.exists() else []
    log_history(client, run, history, (began, ended))
    curves = {key for row in history for key in row}
    finals = [
        Metric(key, value, ended, record.metrics["train/epochs"])
        for key, value in record.headline.items()
        if key not in curves and key not in run.data.metrics
    ]
    client.log_batch(run_id, metrics=finals)
    for path, target in artifacts(record).items():
        found = folder / path
        for file in sorted(found.iterdir()) if found.is_dir() else [found] if found.exists() else []:
            client.log_artifact(run_id, str(file), target or None)
    _log_dataset(client, run, record)
    graph = exported(record)
    if graph and (folder / graph).exists() and not model_version(client, model, run):
        _register(client, run, model, record, folder / graph, tags.get("mlflow.note.content", ""))
    if missing:
        client.set_tag(run_id, MISSING_TAG, " ".join(missing))
    elif MISSING_TAG in run.data.tags:
        client.delete_tag(run_id, MISSING_TAG)
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    client.set_tag(run_id, COMPLETE_TAG, "true")


def _tags(record: Results) -> dict[str, str]:
    """Return the tags that describe a result: dataset, seed, device, determinism, versions."""
    measured, params = record.metrics, record.params
    return {
        **{key: str(measured[f"train/{key}"]) for key in MACHINE},
        **{f"version.{key}": str(measured[f"train/{key}"]) for key in VERSIONS if f"train/{key}" in measured},
        "dataset": str(measured["data/name"]),
        "seed": str(params["train.seed"]),
        "deterministic": text_of(params["train.deterministic"]),
        "mlflow.source.name": "dvc.yaml",
    }


def _log_dataset(client: "MlflowClient", run: "Run", record: Results) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if run.inputs and run.inputs.dataset_inputs:
        return
    dataset = Dataset(
        record.metrics["data/name"],
        record.dataset_hash[:36],
        "dvc",
        json.dumps({"dvc_hash": record.dataset_hash}),
        profile=json.dumps({key: value for key, value in record.metrics.items() if key.startswith("data/")}),
    )
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _register(client: "MlflowClient", run: "Run", name: str, record: Results, graph_file: Path, card: str) -> None:
    """Log the ONNX model to a run and register it as a new version."""
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load(graph_file)
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
    tags = {CONTENT_TAG: record.content, "onnx_sha256": files.sha256(graph_file)}
    client.create_model_version(
        name, info.model_uri, run.info.run_id, tags=tags, description=card, model_id=info.model_id
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
