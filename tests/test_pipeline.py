"""The seven stages by the real dvc in a clone of this repository, on a small generated dataset."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from ruamel.yaml import YAML

from pipeline.experiments import dependencies
from pipeline.experiments.repository import Repository
from tests.clone import Clone, ran
from tests.conftest import SMALL, write_params

STAGES = ["download", "preprocess", "train", "evaluate", "inspect", "export", "track"]
LEARNED = {"inspect.features": True}


@pytest.fixture(scope="module")
def clone(tmp_path_factory, environment) -> Clone:
    """A clone in which `dvc repro` has run once; what it printed is in `clone.first`."""
    made = Clone(tmp_path_factory.mktemp("clone") / "repository", environment, LEARNED)
    made.first = made("dvc", "repro")
    return made


def test_repro_runs_all_stages_and_leaves_every_output(clone):
    """From nothing to a trained, evaluated, exported, tracked network."""
    assert ran(clone.first) == STAGES
    for stage in dependencies.stages(clone.folder).values():
        for entry in (*stage.get("outs", []), *stage.get("metrics", [])):
            assert (clone.folder / (entry if isinstance(entry, str) else next(iter(entry)))).exists(), entry
    assert clone.metrics("evaluate")["test/images"] == 1000
    assert clone.metrics("evaluate")["test/data"] == "shapes10"
    assert clone.metrics("train")["train/epochs"] == 2


def test_a_second_repro_runs_nothing(clone):
    """All outputs are what their inputs decide."""
    assert ran(clone("dvc", "repro")) == []


def test_the_run_is_complete_in_mlflow(clone):
    """Params, metrics under DVC's names, curves, figures, dataset, model: all in one run."""
    (run,) = [run for run in clone.runs() if "DVC_EXP_NAME" not in run.data.tags]
    client = mlflow.MlflowClient(f"sqlite:///{clone.folder}/mlflow.db")
    assert run.info.status == "FINISHED"
    assert run.data.params["model.cnn.widths"] == "[8, 16]"
    assert run.data.params["optimizer.muon.lr"] == "0.01"
    assert not any(key.startswith("model.resnet") for key in run.data.params)
    for name in ("preprocess", "train", "evaluate", "inspect", "export", "runtime/train", "runtime/export"):
        for key, value in clone.metrics(name).items():
            if isinstance(value, int | float):
                assert run.data.metrics[key] == value, key
    curve = client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [point.step for point in curve] == [1, 2]
    assert curve[-1].value == clone.metrics("train")["val/accuracy"]
    assert run.data.tags["dataset"] == "shapes10"
    assert run.data.tags["device"] == "cpu"
    assert run.data.tags["mlflow.source.name"] == "dvc.yaml"
    assert run.data.tags["mlflow.note.content"].startswith("# cnn for shapes10")
    lock = YAML(typ="safe").load(clone.folder / "dvc.lock")
    (recorded,) = [out["md5"] for out in lock["stages"]["preprocess"]["outs"] if out["path"] == "data/processed"]
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "shapes10"
    assert json.loads(used.dataset.source)["dvc_hash"] == recorded
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"params.yaml", "history.csv", "layers.csv", "predictions.csv", "MODEL_CARD.md", "figures"} <= names
    figures = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"augmentations.png", "training.png", "confusion.png", "reliability.png", "mistakes.png"}
    inspection = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "inspection")}
    assert inspection == {"corruptions.csv", "shifts.csv", "layers.csv", "figures"}
    inspection = {Path(file.path).stem for file in client.list_artifacts(run.info.run_id, "inspection/figures")}
    learned = {"first_layer", "patches", "embedding", "confusions", "label_errors"}
    assert inspection == {"corruptions", "shifts", "layers"} | learned


def test_the_registered_model_predicts_what_the_pipeline_predicted(clone):
    """Loaded by its registry name, with MLflow alone, on uint8 images."""
    import numpy as np
    import pandas as pd

    mlflow.set_tracking_uri(f"sqlite:///{clone.folder}/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/cifar10-cnn/1")
    images = np.load(clone.folder / "data/processed/test_images.npy")[:50]
    predicted = pd.read_csv(clone.folder / "results/predictions.csv", nrows=50)
    names = predicted.columns[3:]
    probabilities = model.predict({"images": images})["probabilities"]
    assert np.abs(probabilities - predicted[names].to_numpy()).max() < 1e-4


def test_changing_what_evaluate_reads_does_not_retrain(clone):
    """evaluate and what follows it, and a run of its own in MLflow with train's curves."""
    output = clone("dvc", "exp", "run", "-n", "plain", "-S", "evaluate.tta=none")
    assert ran(output) == ["evaluate", "export", "track"]
    (run,) = [run for run in clone.runs() if run.info.run_name == "plain"]
    client = mlflow.MlflowClient(f"sqlite:///{clone.folder}/mlflow.db")
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 2
    clone("git", "checkout", "-q", ".")


def test_changing_an_architecture_that_is_not_in_use_runs_nothing(clone):
    """model.resnet.* has no effect on a cnn."""
    clone("dvc", "repro")
    write_params(clone.folder / "params.yaml", SMALL | LEARNED | {"model.resnet.depth": 14, "model.mlp.hidden": [7]})
    assert ran(clone("dvc", "repro")) == []
    clone("git", "checkout", "-q", "params.yaml")


def test_a_restored_experiment_is_tracked_all_the_same(clone):
    """The same parameters under two names, each in a temporary workspace: train is restored, each has its run."""
    changes = ("-S", "model.cnn.activation=tanh", "-S", "train.diagnostics=true", "-S", "inspect.features=false")
    for name in ("first", "second"):
        output = clone("dvc", "exp", "run", "--temp", "-n", name, *changes)
        assert ("train" in ran(output)) == (name == "first"), output
    first, second = [[run for run in clone.runs() if run.info.run_name == name] for name in ("first", "second")]
    assert len(first) == len(second) == 1
    assert first[0].data.metrics == second[0].data.metrics
    assert first[0].data.params == second[0].data.params
    assert first[0].data.params["model.cnn.activation"] == "tanh"
    artifacts = Path(second[0].info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(clone.folder / "mlartifacts")
    for figure in ("confusion", "gradients", "units"):
        assert (artifacts / f"figures/{figure}.png").stat().st_size > 10_000
    layers = (artifacts / "layers.csv").read_text().splitlines()
    assert len(layers) == 1 + 3 * 5  # before the first epoch and after two: three layers with weights, two activations
    assert (clone.folder / "params.yaml").read_text().count("activation: tanh") == 0


def test_results_of_a_revision_can_be_shown_and_compared(clone):
    """`python -m pipeline show` and DVC's own diffs read what the stages wrote."""
    shown = clone(sys.executable, "-m", "pipeline", "show", "first")
    assert "test accuracy" in shown
    assert "accuracy on corrupted images" in shown
    assert "shapes10" in shown
    with Repository(clone.folder) as repository:
        first, other = (repository.results(repository.resolve(name)).metrics for name in ("first", "plain"))
    assert first["train/loss"] != other["train/loss"] == clone.metrics("train")["train/loss"]
    assert first["model/parameters"] == other["model/parameters"]
    difference = clone("dvc", "metrics", "diff", "first", "plain", "--json")
    changed = {key for metrics in json.loads(difference).values() for key in metrics}
    assert {"train/loss", "test/loss"} <= changed
    assert "model/parameters" not in changed
    drawn = clone("dvc", "plots", "diff", "first", "plain", "-o", "dvc_plots")
    assert "failed" not in drawn, "first has no pictures of what it has learned"
    page = (clone.folder / "dvc_plots/index.html").read_text()
    for title in ("Loss", "Accuracy", "Confusion", "confusion.png", "embedding.png"):
        assert title in page
    assert "shifts.csv" not in page
    assert "error: nowhere: unknown Git revision 'nowhere'" in clone(
        sys.executable, "-m", "pipeline", "show", "nowhere", code=1
    )


def test_the_same_inputs_give_the_same_bytes(clone, tmp_path_factory, environment):
    """A second clone, without the first one's cache, hashes to the same dvc.lock but for what a clock says."""
    other = Clone(tmp_path_factory.mktemp("other") / "repository", environment, LEARNED)
    other("dvc", "repro")
    clone("git", "checkout", "-q", ".")
    clone("dvc", "repro")
    hashes = []
    for folder in (clone.folder, other.folder):
        stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
        outs = [out for stage in stages.values() for out in stage.get("outs", [])]
        hashes.append({out["path"]: out["md5"] for out in outs if not out["path"].startswith("metrics/runtime/")})
    assert len(hashes[0]) == 16
    assert hashes[0] == hashes[1]


def test_stages_find_the_projects_interpreter_without_an_activated_environment(clone):
    """`.venv/bin/dvc repro` from a plain shell: a bare python3 hands over to .venv, or says to activate it."""
    bare = {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": "", "DVC_ROOT": str(clone.folder)}
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("this machine has no python3 outside of environments, so there is none to hand over from")
    command = (python, "-m", "stages.download", "--help")
    message = clone(*command, code=1, **bare)
    assert "run 'make install', then 'source .venv/bin/activate'" in message
    assert len(message.splitlines()) == 1
    (clone.folder / ".venv/bin").mkdir(parents=True)
    launcher = clone.folder / ".venv/bin/python"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    launcher.chmod(0o755)
    assert "--params" in clone(*command, **bare)
    shutil.rmtree(clone.folder / ".venv")


def test_stages_refuse_to_run_the_code_of_another_workspace(clone, tmp_path):
    """An editable install elsewhere must not stand in for the workspace's own code."""
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-m", "stages.download", "--help"]
    done = subprocess.run(
        command,
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
        env=clone.environment | {"PYTHONPATH": str(clone.folder)},
    )
    assert done.returncode == 1
    assert "but Python would run the stages of" in done.stderr
    assert os.fspath(clone.folder) in done.stderr
