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

from pipeline import headline
from pipeline.experiments import dependencies
from tests.clone import Clone, ran

STAGES = ["download", "preprocess", "train", "evaluate", "inspect", "export", "track"]
OWN = """
  own:
    cmd: [echo a > own-a.txt, echo b > own-b.txt]
    outs: [own-a.txt, {own-b.txt: {cache: false}}]
  each:
    foreach: [one, two]
    do:
      cmd: echo ${item} > own-${item}.txt
      outs: ["own-${item}.txt"]
  grid:
    matrix: {size: [1, 2], kind: [x]}
    cmd: echo ${item.size} > own-${item.size}-${item.kind}.txt
    outs: ["own-${item.size}-${item.kind}.txt"]
  still:
    cmd: echo still > own-still.txt
    outs: [own-still.txt]
"""
"""Stages that a user may add to dvc.yaml, in every form that DVC has."""
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def clone(finished, environment) -> Clone:
    """The repository in which `dvc repro` has run once."""
    return Clone(finished.repository, environment)


def test_repro_runs_all_stages_and_leaves_every_output(clone, finished):
    """From nothing to a trained, evaluated, exported, tracked network."""
    assert ran(finished.output) == STAGES
    for stage in dependencies.stages(clone.folder).values():
        for entry in (*stage.get("outs", []), *stage.get("metrics", [])):
            assert (clone.folder / (entry if isinstance(entry, str) else next(iter(entry)))).exists(), entry
    assert clone.metrics("details/evaluate")["test/images"] == 1000
    assert clone.metrics("details/evaluate")["test/data"] == "shapes10"
    assert clone.metrics("details/train")["train/epochs"] == 2


def test_dvcs_table_has_the_shown_metrics_and_no_others(clone):
    """Whatever is in details and runtime is in none of DVC's tables."""
    table = json.loads(clone("dvc", "metrics", "show", "--json"))
    shown = [name for file in table[""]["data"].values() for name in file["data"]]
    assert sorted(shown) == sorted(headline.SHOWN)


def test_a_second_repro_runs_nothing(clone):
    """All outputs are what their inputs decide, and sections of architectures that are not in use decide nothing."""
    params = clone.folder / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("depth: 20", "depth: 14").replace("momentum: 0.9 ", "momentum: 0.8 "))
    assert clone("git", "diff", "--numstat").split()[:2] == ["2", "2"]
    assert ran(clone("dvc", "repro")) == []
    params.write_text(text)


def test_the_run_is_complete_in_mlflow(clone):
    """Params, headline metrics under DVC's names, curves, figures, details, dataset, model: all in one run."""
    (run,) = clone.runs()
    client = clone.client()
    assert run.info.status == "FINISHED"
    assert run.data.params["model.cnn.widths"] == "[8, 16]"
    assert run.data.params["optimizer.muon.lr"] == "0.01"
    assert not any(key.startswith("model.resnet") for key in run.data.params)
    files = ("train", "time", "evaluate", "details/evaluate", "details/export", "runtime/train", "runtime/export")
    measured = {key: value for name in files for key, value in clone.metrics(name).items()}
    expected = headline.HEADLINE.keys() - {"test/accuracy_tta"}  # evaluate.tta is none
    assert {key: run.data.metrics[key] for key in expected} == {key: measured[key] for key in expected}
    assert "test/images" not in run.data.metrics
    details = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "details")}
    assert details == {f"{stage}.json" for stage in ("preprocess", "train", "evaluate", "inspect", "export")}
    curve = client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [point.step for point in curve] == [1, 2]
    assert curve[-1].value == clone.metrics("train")["val/accuracy"]
    assert run.data.tags["dataset"] == "shapes10"
    assert run.data.tags["device_name"] == measured["train/device_name"]
    assert run.data.tags["precision"] == measured["train/precision"]
    assert run.data.tags["mlflow.source.name"] == "dvc.yaml"
    assert f"| test accuracy | {measured['test/accuracy']:.2%} |" in run.data.tags["mlflow.note.content"]
    lock = YAML(typ="safe").load(clone.folder / "dvc.lock")
    (recorded,) = [out["md5"] for out in lock["stages"]["preprocess"]["outs"] if out["path"] == "data/processed"]
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "shapes10"
    assert json.loads(used.dataset.source)["dvc_hash"] == recorded
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    tables = {f"{name}.csv" for name in ("history", "layers", "predictions", "classes")}
    assert {"params.yaml", "MODEL_CARD.md", "figures", "robustness"} | tables <= names
    figures = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "figures")}
    trained = {"training.png", "gradients.png", "units.png"}
    evaluated = {"confusion.png", "reliability.png", "mistakes.png", "corruptions.png"}
    assert figures == {"augmentations.png"} | evaluated | trained
    robustness = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "robustness")}
    assert robustness == {"corruptions.csv", "shifts.csv"}
    inspection = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "inspection")}
    assert inspection == {"layers.csv", "figures"}
    inspection = {Path(file.path).stem for file in client.list_artifacts(run.info.run_id, "inspection/figures")}
    learned = {"first_layer", "patches", "embedding", "confusions", "label_errors"}
    assert inspection == {"layers"} | learned


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
    """Neither inspect nor export, which read the model alone; without MLflow the experiment is kept, and sync makes
    its run later."""
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    output = clone("dvc", "exp", "run", "-n", "plain", "-S", "evaluate.tta=flip", **away)
    assert ran(output) == ["evaluate", "track"]
    assert "run python -m pipeline sync" in output
    clone("git", "checkout", "-q", ".")
    assert [run.info.run_name for run in clone.runs() if "DVC_EXP_NAME" in run.data.tags] == []
    assert clone(sys.executable, "-m", "pipeline", "sync", "--rev", "plain").splitlines() == ["create plain"]
    run = of_experiment(clone, "plain")
    assert run.data.params["evaluate.tta"] == "flip"
    assert "test/accuracy_tta" in run.data.metrics
    assert run.data.metrics["train/loss"] == clone.metrics("details/train")["train/loss"]
    assert steps(clone, run, "train/loss") == steps(clone, run, "val/accuracy") == [1, 2]


def test_a_restored_experiment_is_tracked_all_the_same(clone):
    """The same parameters under another name, where nothing has run: all comes from DVC's cache, and has its run."""
    (clone.folder / "dvc.lock").unlink()
    output = clone("dvc", "exp", "run", "--temp", "-n", "again", "-S", "evaluate.tta=flip")
    assert ran(output) == ["track"]
    plain, again = of_experiment(clone, "plain"), of_experiment(clone, "again")
    assert plain.data.metrics == again.data.metrics
    assert plain.data.params == again.data.params
    assert steps(clone, again, "train/loss") == steps(clone, again, "val/accuracy") == [1, 2]
    artifacts = Path(again.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(clone.folder / "mlartifacts")
    for figure in ("confusion", "gradients", "units"):
        assert (artifacts / f"figures/{figure}.png").stat().st_size > 10_000
    layers = (artifacts / "layers.csv").read_text().splitlines()
    assert len(layers) == 1 + 3 * 5  # before the first epoch and after two: three layers with weights, two activations
    assert "tta: none" in (clone.folder / "params.yaml").read_text()


def of_experiment(clone: Clone, name: str) -> mlflow.entities.Run:
    (run,) = [run for run in clone.runs() if run.info.run_name == name]
    return run


def steps(clone: Clone, run: mlflow.entities.Run, metric: str) -> list[int]:
    return [point.step for point in clone.client().get_metric_history(run.info.run_id, metric)]


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


def test_stages_of_the_users_own_disturb_nothing(clone):
    """Beside ours, in a file of their own under a name of ours, and frozen: all commands say what they said before."""
    clone("dvc", "repro")
    clone.commit("Results")

    def said() -> list[str]:
        commands = (("show", "plain"), ("compare", "--all"), ("sync", "--dry-run", "--rev", "plain"), ("doctor",))
        return [clone(sys.executable, "-m", "pipeline", *words) for words in commands]

    before = said()
    pipeline, other = clone.folder / "dvc.yaml", clone.folder / "other"
    stages, rest = pipeline.read_text().split("\nplots:")
    pipeline.write_text(f"{stages}{OWN}\nplots:{rest}")
    other.mkdir()
    (other / "dvc.yaml").write_text("stages:\n  train:\n    cmd: [echo a > a]\n    outs: [a]\n")
    own = ["own", "each@one", "each@two", "grid@1-x", "grid@2-x", "still"]
    assert sorted(ran(clone("dvc", "repro", "--all-pipelines"))) == sorted([*own, "other/dvc.yaml:train"])
    pipeline.write_text(pipeline.read_text().replace("  still:\n", "  still:\n    frozen: true\n"))
    clone.commit("Stages of my own")
    assert said() == before
    output = clone("dvc", "exp", "run", "-n", "with-own", "-S", "evaluate.tta=six")
    assert ran(output) == ["evaluate", "track"]
    assert of_experiment(clone, "with-own").data.params["evaluate.tta"] == "six"
