"""Publish results: complete the MLflow run that train opened for them, or create one, from files.

Publishing is idempotent; publishing again after an error of the store adds what is missing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments import baseline, results
from pipeline.experiments.results import Results, text_of
from pipeline.tracking import groups, registry, report, runs, store
from pipeline.tracking.owner import Owner

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MACHINE = ("device_name", "precision")
"""What the tags say of the machine; the details have more."""


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
        run = runs.find(client, experiment, record, owner)
        existed = run is not None and runs.is_complete(run) and runs.MISSING_TAG not in run.data.tags
        if run is None or not existed:
            run = run or runs.create(client, experiment, record.training, record.arch, owner, record)
            _complete(client, run, model, record, owner, folder)
        if not existed or not groups.is_grouped(run):
            describe(root, client, run, record, owner)
        return Published(run.info.run_name, run.info.run_id, runs.model_version(client, model, run), existed)


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


def _complete(client: "MlflowClient", run: "Run", model: str, record: Results, owner: Owner, folder: Path) -> None:
    from mlflow.entities import Metric, Param, RunTag

    run_id = run.info.run_id
    began, ended = runs.milliseconds(record.started), runs.milliseconds(record.ended)
    missing = [path for path in needed(record) if not (folder / path).exists()]
    card = folder / record.paths["evaluate"]["card"]
    tags = {**_tags(record), **owner.tags, runs.CONTENT_TAG: record.content, runs.TRAINING_TAG: record.training}
    card_text = card.read_text(encoding="utf-8") if card.exists() else ""
    client.log_batch(
        run_id,
        params=[Param(key, text_of(value)) for key, value in record.params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    curves_file = folder / record.paths["train"]["history"]
    history = results.parse_history(curves_file.read_bytes()) if curves_file.exists() else []
    runs.log_history(client, run, history, (began, ended))
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
    if graph and (folder / graph).exists() and not runs.model_version(client, model, run):
        registry.register(client, run, model, record.content, folder / graph, card_text)
    if missing:
        client.set_tag(run_id, runs.MISSING_TAG, " ".join(missing))
    elif runs.MISSING_TAG in run.data.tags:
        client.delete_tag(run_id, runs.MISSING_TAG)
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    client.set_tag(run_id, runs.COMPLETE_TAG, "true")


def _tags(record: Results) -> dict[str, str]:
    """Return the tags that describe a result, for filters; all other facts are parameters or artifacts."""
    measured = record.metrics
    return {
        "dataset": str(measured["data/name"]),
        **{key: str(measured[f"train/{key}"]) for key in MACHINE},
        "mlflow.source.name": "dvc.yaml",
    }


def describe(root: Path, client: "MlflowClient", run: "Run", record: Results, owner: Owner) -> None:
    """Write the run's description, and make it a child of its configuration."""
    since = owner.baseline or "HEAD"
    differing = {key: text_of(value) for key, value in baseline.differing_from(root, since, record).items()}
    before = baseline.results_at(root, since) if owner.experiment else None
    text = report.describe(run, record, owner, differing, before)
    client.set_tag(run.info.run_id, "mlflow.note.content", text)
    groups.join(root, client, run, record, differing)


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
