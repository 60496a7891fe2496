"""Make this experiment's MLflow run whole: the one that train opened, or a new one made from files.

The stage has no outputs, so DVC never restores it from the run cache: a restored training is tracked, too.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import files, stage, tracking
from pipeline.errors import TrackingError
from pipeline.params import Params, load


def main(
    params: stage.PathOption,
    lock: stage.PathOption,
    data: stage.PathOption,
    weights: stage.PathOption,
    metrics_dir: stage.PathOption,
    history: stage.PathOption,
    predictions: stage.PathOption,
    preview: stage.PathOption,
    figures_dir: stage.PathOption,
    onnx: stage.PathOption,
    card: stage.PathOption,
) -> None:
    settings = load(params)
    import pandas as pd  # after params.yaml is known to be right

    if not settings.tracking.enabled:
        print("tracking.enabled is false: nothing goes to MLflow")
        return
    print(f"publishing to {tracking.tracking_uri(stage.root())}", flush=True)
    measured: dict[str, Any] = {}
    for path in sorted(metrics_dir.rglob("*.json")):
        measured |= files.read_json(path)
    results = tracking.Results(
        params=settings.effective(),
        metrics={key: value for key, value in measured.items() if isinstance(value, int | float)},
        history=pd.read_csv(history).to_dict("records"),
        artifacts=dict.fromkeys((params, card, history, predictions), "")
        | dict.fromkeys((preview, *sorted(figures_dir.iterdir())), "figures"),
        tags=tags(settings, measured),
        dataset_name=measured["data/name"],
        dataset_hash=dvc_hash(lock, data),
        dataset_profile={key: value for key, value in measured.items() if key.startswith("data/")},
        training=measured["train/fingerprint"],
        weights=files.sha256(weights),
        onnx=onnx,
        card=card.read_text(encoding="utf-8"),
    )
    run = tracking.publish(stage.root(), settings.tracking, results)
    print(
        f"MLflow run {run.name} ({run.run_id}) {'was there already' if run.existed else 'is complete'}: "
        f"{settings.tracking.model} version {run.model_version}; look at it with: make ui"
    )


def tags(settings: Params, measured: dict[str, Any]) -> dict[str, str]:
    """Say what the numbers should be read with: data, seed, device, determinism, versions."""
    machine = {
        key: str(measured[f"train/{key}"]) for key in ("device", "device_name", "threads", "precision", "platform")
    }
    versions = {f"version.{key}": measured[f"train/{key}"] for key in ("python", "torch")}
    return (
        machine
        | versions
        | {
            "dataset": measured["data/name"],
            "seed": str(settings.train.seed),
            "deterministic": str(settings.train.deterministic).lower(),
        }
    )


def dvc_hash(lock: Path, out: Path) -> str:
    """Return the hash that DVC recorded for an output in dvc.lock."""
    stages = YAML(typ="safe").load(lock)["stages"] if lock.exists() else {}
    for entry in stages.values():
        for recorded in entry.get("outs", []):
            if recorded["path"] == out.as_posix():
                return str(recorded["md5"])
    raise TrackingError(f"{lock}: expected an entry for {out}, found none; run this stage through dvc repro track")


if __name__ == "__main__":
    stage.run(main)
