"""Curves that MLflow shows while a training runs: whatever dies, the run ends up whole and there is one."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import mlflow
import pytest

from pipeline import files
from pipeline.tracking import live
from tests.conftest import SMALL, stage_command, start_python, write_params
from tests.paths import ROOT
from tests.tracked import TRAINING, all_runs, curve

pytestmark = pytest.mark.e2e


def train_live(root: Path) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
    """Open the run of a training of `TRAINING`; gives what takes its epochs."""
    return live.LiveRun(root, "cifar10").opened(TRAINING, "cnn")


def test_the_run_that_train_opened_is_completed_and_not_doubled(tmp_path, publish):
    """Live curves with a gap: publish fills it, and the run keeps its id."""
    with train_live(tmp_path) as log:
        log({"epoch": 1, "val/accuracy": 0.3})
    (run,) = all_runs(tmp_path)
    assert run.info.status == "RUNNING"
    assert run.data.metrics == {"val/accuracy": 0.3}
    assert publish().run_id == run.info.run_id
    (run,) = all_runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert curve(tmp_path, run.info.run_id, "val/accuracy") == [(1, 0.3), (2, 0.4)]
    assert run.data.metrics["test/accuracy"] == 0.5


def test_a_run_says_that_its_training_was_killed(tmp_path, environment):
    """SIGKILL leaves a training no time to say anything; the process beside it does, with all epochs that ended."""
    code = (
        "import os; from pathlib import Path; from pipeline.tracking import live;"
        f"run = live.LiveRun(Path({str(tmp_path)!r}), 'cifar10').opened({TRAINING!r}, 'cnn'); log = run.__enter__();"
        "log({'epoch': 1, 'val/accuracy': 0.3}); log({'epoch': 2, 'val/accuracy': 0.4}); os.kill(os.getpid(), 9)"
    )
    training = start_python(code, environment=environment)
    training.communicate()  # until the process beside it, which has its output, has ended, too
    assert training.returncode == -signal.SIGKILL
    (run,) = all_runs(tmp_path)
    assert run.info.status == "KILLED"
    assert curve(tmp_path, run.info.run_id, "val/accuracy") == [(1, 0.3), (2, 0.4)]


def test_a_store_that_fails_is_one_warning_of_the_training(tmp_path, monkeypatch, capsys):
    """However many epochs follow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with train_live(tmp_path) as log:
        for epoch in range(1, 1001):
            log({"epoch": epoch, "val/accuracy": 0.3})
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: MLflow: ")
    assert warning.endswith("; training continues, the track stage completes the run")


def test_a_training_killed_and_begun_again_goes_on_in_its_run(tmp_path):
    """The second process is told of restored epochs, too; none is logged twice."""
    with suppress(KeyboardInterrupt), train_live(tmp_path) as log:
        log({"epoch": 1, "val/accuracy": 0.3})
        raise KeyboardInterrupt
    assert all_runs(tmp_path)[0].info.status == "FAILED"
    with train_live(tmp_path) as log:
        log({"epoch": 1, "val/accuracy": 0.3})
        log({"epoch": 2, "val/accuracy": 0.4})
    (run,) = all_runs(tmp_path)
    assert run.info.status == "RUNNING"
    assert curve(tmp_path, run.info.run_id, "val/accuracy") == [(1, 0.3), (2, 0.4)]


def test_a_training_repeated_opens_no_second_run(tmp_path, publish):
    """`dvc repro --force` computes the same bytes, which have a complete run already."""
    publish()
    with train_live(tmp_path) as log:
        log({"epoch": 1, "val/accuracy": 0.3})
    assert publish().existed
    (run,) = all_runs(tmp_path)
    assert run.info.status == "FINISHED"


def test_training_survives_a_server_that_dies_and_the_run_is_completed_later(
    tmp_path, server, processed, environment, publish, record, monkeypatch
):
    """The server is killed after the first epoch: a warning, a trained model; when it is back, one whole run."""
    changes = SMALL | {"train.epochs": 6}
    parameters = write_params(tmp_path / "train.yaml", changes)
    history = tmp_path / "history.csv"
    command = stage_command("train", tmp_path, params=parameters, data=processed, history=history)
    train = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"MLFLOW_TRACKING_URI": server.url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    client = mlflow.MlflowClient(server.url)
    opened = None
    while train.poll() is None and not opened:
        experiment = client.get_experiment_by_name("cifar10")
        opened = experiment and [run for run in client.search_runs([experiment.experiment_id]) if run.data.metrics]
    server.kill()
    _, warnings = train.communicate()
    assert train.returncode == 0, warnings
    assert (tmp_path / "model/weights.safetensors").exists()
    assert len(history.read_text().splitlines()) == 7

    server.start()
    identity = files.read_row(tmp_path / "metrics/runtime/train.json")["train/fingerprint"]
    published = publish(metrics=record.metrics | {"train/fingerprint": identity})
    (run,) = all_runs(tmp_path)
    assert run.info.run_id == published.run_id
    assert [step for step, _ in curve(tmp_path, run.info.run_id, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"


def test_system_metrics_are_logged_on_request(tmp_path, monkeypatch):
    """The machine's, in MLflow's own names, beside the curves."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with live.LiveRun(tmp_path, "cifar10", system_metrics=True).opened(TRAINING, "cnn") as log:
        log({"epoch": 1, "val/accuracy": 0.3})
        deadline = time.monotonic() + 120
        while not any("system/cpu_utilization_percentage" in run.data.metrics for run in all_runs(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    (run,) = all_runs(tmp_path)
    assert run.data.metrics["val/accuracy"] == 0.3
