"""The results of a small pipeline without its minutes, and what a store shows of them once they are published."""

import functools
from pathlib import Path

import mlflow

from pipeline.config.loading import changed, load, read, validate
from pipeline.experiments.results import Results
from pipeline.export import graph
from pipeline.models.common.build import build
from pipeline.tracking import groups, publication, runs, store
from pipeline.tracking.owner import Owner
from pipeline.tracking.publication import Published
from tests.conftest import SMALL, write_params
from tests.paths import ROOT

TRAINING = "a" * 64
NOBODY = Owner()
SETTINGS = {"experiment": "cifar10", "model": "cifar10-cnn"}


@functools.cache
def exported() -> bytes:
    """Return a small network as a real ONNX graph, which takes seconds to make."""
    section = validate(changed(read(ROOT / "params.yaml"), SMALL), "params.yaml").model.cnn
    network = build("cnn", section, mean=(1, 2, 3), std=(4, 5, 6), classes=10).eval()
    return graph.to_onnx(network, tuple("abcdefghij"), 32, {})


def write_results(folder: Path) -> Results:
    """Write the files of such results, with a real ONNX graph, and return their record."""
    params = load(write_params(folder / "params.yaml", SMALL))
    (folder / "model.onnx").write_bytes(exported())
    (folder / "figures").mkdir()
    (folder / "figures/confusion.png").write_bytes(b"a picture")
    (folder / "preview.png").write_bytes(b"another")
    (folder / "predictions.csv").write_text("index,label,predicted\n")
    (folder / "history.csv").write_text("epoch,val/accuracy\n1,0.3\n2,0.4\n")
    (folder / "layers.csv").write_text("epoch,layer\n")
    (folder / "card.md").write_text("# A card")
    (folder / "classes.csv").write_text("class,images\n")
    (folder / "robustness").mkdir()
    (folder / "robustness/corruptions.csv").write_text("corruption,severity\n")
    machine = dict.fromkeys(publication.MACHINE, "x")
    return Results(
        params=params.effective("data", "augment", "model", "optimizer", "train", "evaluate", "export"),
        metrics={
            "data/name": "shapes10",
            "data/train_images": 500,
            "model/parameters": 1234,
            "train/epochs": 2,
            "train/fingerprint": TRAINING,
            "train/started": "2026-01-02T03:04:05.678+00:00",
            "val/accuracy": 0.4,
            "test/accuracy": 0.5,
            "evaluate/ended": "2026-01-02T03:05:05.678+00:00",
            **{f"train/{key}": value for key, value in machine.items()},
        },
        outputs={"model": "1" * 32, "predictions.csv": "2" * 32, "processed": "0123456789abcdef0123456789abcdef.dir"},
        paths={
            "preprocess": {"out": "processed", "preview": "preview.png"},
            "train": {"params": "params.yaml", "out": "model", "history": "history.csv", "layers": "layers.csv"},
            "evaluate": {
                "predictions": "predictions.csv",
                "figures-dir": "figures",
                "card": "card.md",
                "classes": "classes.csv",
                "robustness": "robustness",
            },
            "export": {"out": "model.onnx"},
        },
        content="b" * 64,
        tracking={},
    )


def publish(folder: Path, results: Results, owner: Owner) -> Published:
    """Publish results whose files are in a folder to the store that is there, too."""
    return publication.publish(folder, SETTINGS, results, owner, folder)


def all_runs(root: Path) -> list:
    client, experiment = store.experiment(root, "cifar10")
    return [run for run in runs.search(client, experiment) if not groups.is_parent(run)]


def curve(root: Path, run_id: str, key: str) -> list[tuple[int, float]]:
    client = mlflow.MlflowClient(store.uri(root))
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))
