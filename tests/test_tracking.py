"""MLflow as a view that can fail, come late or be told twice, without a run lost or told double."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import mlflow
import pytest

from pipeline import files
from pipeline.errors import TrackingError
from pipeline.params import load
from pipeline.results import Results
from pipeline.tracking import live, registry, runs, store
from pipeline.tracking.runs import Owner
from tests.conftest import SMALL, start_python, write_params
from tests.paths import ROOT

TRAINING = "a" * 64
NOBODY = Owner()
SETTINGS = {"experiment": "cifar10", "model": "cifar10-cnn"}


@pytest.fixture
def record(tmp_path) -> Results:
    """The record of a small pipeline whose files, with a real ONNX graph, are in tmp_path."""
    from pipeline import exporting, models

    params = load(write_params(tmp_path / "params.yaml", SMALL))
    network = models.build("cnn", params.model.cnn, mean=(1, 2, 3), std=(4, 5, 6), classes=10).eval()
    (tmp_path / "model.onnx").write_bytes(exporting.to_onnx(network, tuple("abcdefghij"), 32, {}))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/confusion.png").write_bytes(b"a picture")
    (tmp_path / "preview.png").write_bytes(b"another")
    (tmp_path / "predictions.csv").write_text("index,label,predicted\n")
    (tmp_path / "history.csv").write_text("epoch,val/accuracy\n1,0.3\n2,0.4\n")
    (tmp_path / "card.md").write_text("# A card")
    machine = dict.fromkeys((*runs.MACHINE, *runs.VERSIONS), "x")
    return Results(
        params=params.effective("data", "augment", "model", "train", "evaluate", "export"),
        metrics={
            "data/name": "shapes10",
            "data/train_images": 500,
            "model/parameters": 1234,
            "train/epochs": 2,
            "train/fingerprint": TRAINING,
            "train/started": "2026-01-02T03:04:05.678+00:00",
            "val/accuracy": 0.4,
            "test/accuracy": 0.5,
            "export/ended": "2026-01-02T03:05:05.678+00:00",
            **{f"train/{key}": value for key, value in machine.items()},
        },
        outputs={"processed": "0123456789abcdef0123456789abcdef.dir"},
        paths={
            "preprocess": {"out": "processed", "preview": "preview.png"},
            "train": {"params": "params.yaml", "history": "history.csv"},
            "evaluate": {"predictions": "predictions.csv", "figures-dir": "figures"},
            "export": {"out": "model.onnx", "card": "card.md"},
        },
        content="b" * 64,
        tracking={},
    )


@pytest.fixture
def publish(tmp_path, record):
    """A function that publishes that record for an experiment, or for none."""
    return lambda owner=NOBODY, **changes: runs.publish(
        tmp_path, SETTINGS, dataclasses.replace(record, **changes), owner, tmp_path
    )


def all_runs(root: Path) -> list:
    client, experiment = store.experiment(root, "cifar10")
    return runs.search(client, experiment)


def curve(root: Path, run_id: str, key: str) -> list[tuple[int, float]]:
    client = mlflow.MlflowClient(store.uri(root))
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))


def train_live(root: Path) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
    """Open the run of a training of `TRAINING`; gives what takes its epochs."""
    return live.LiveRun(root, "cifar10").opened(TRAINING, "cnn")


def test_publishing_twice_adds_nothing(tmp_path, publish):
    """One run, one version of the model, no point of a curve repeated."""
    first = publish()
    before = all_runs(tmp_path)[0].to_dictionary()
    second = publish()
    assert (first.existed, second.existed) == (False, True)
    assert (first.run_id, first.model_version) == (second.run_id, second.model_version)
    (run,) = all_runs(tmp_path)
    assert run.to_dictionary() == before
    client = mlflow.MlflowClient(store.uri(tmp_path))
    assert len(client.search_model_versions("name = 'cifar10-cnn'")) == 1
    assert client.get_model_version("cifar10-cnn", "1").description == "# A card"
    assert curve(tmp_path, run.info.run_id, "val/accuracy") == [(1, 0.3), (2, 0.4)]


def test_a_run_shows_what_inspect_found(tmp_path, publish, record):
    """Its numbers as metrics, its tables and figures beside the others; results without that stage lack nothing."""
    without = publish()
    (tmp_path / "inspection/figures").mkdir(parents=True)
    for name in ("shifts.csv", "figures/shifts.png"):
        (tmp_path / "inspection" / name).write_text("content")
    paths = {**record.paths, "inspect": {"out": "inspection", "metrics": "inspect.json"}}
    metrics = {**record.metrics, "inspect/shift_consistency": 0.75}
    published = publish(paths=paths, metrics=metrics, content="c" * 64)
    client = mlflow.MlflowClient(store.uri(tmp_path))
    before, after = (client.get_run(done.run_id) for done in (without, published))
    shown, drawn = (
        {file.path for file in client.list_artifacts(after.info.run_id, folder)}
        for folder in ("inspection", "inspection/figures")
    )
    assert shown == {"inspection/shifts.csv", "inspection/figures"}
    assert drawn == {"inspection/figures/shifts.png"}
    assert after.data.metrics["inspect/shift_consistency"] == 0.75
    assert runs.MISSING_TAG not in before.data.tags
    assert not client.list_artifacts(before.info.run_id, "inspection")


def test_a_run_tells_when_its_results_were_made(tmp_path, publish, record):
    """Not when they were published: a rebuilt store is in the order of the work."""
    publish()
    (run,) = all_runs(tmp_path)
    assert run.info.start_time == record.started.timestamp() * 1000
    assert run.info.end_time == record.ended.timestamp() * 1000
    assert run.data.tags["dataset"] == "shapes10"
    assert run.data.params["model.cnn.widths"] == "[8, 16]"


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
    assert warning.endswith("; training goes on, the track stage completes the run")


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


def test_experiments_with_equal_results_have_a_run_each(tmp_path, publish):
    """A name given by the user is never lost; results without one need no run beside those that show the same."""
    for name, baseline in (("one", "c" * 40), ("two", "c" * 40), ("one", "c" * 40), ("one", "d" * 40)):
        publish(Owner(name, baseline))
    assert publish().existed
    found = [(run.info.run_name, run.data.tags["DVC_EXP_BASELINE_REV"][0]) for run in all_runs(tmp_path)]
    assert sorted(found) == [("one", "c"), ("one", "d"), ("two", "c")]


def test_other_results_under_an_old_name_have_a_run_of_their_own(tmp_path, publish):
    """`dvc exp run --force -n one` replaces the experiment, not its history."""
    first, second = publish(Owner("one", "c" * 40)), publish(Owner("one", "c" * 40), content="e" * 64)
    assert first.run_id != second.run_id
    assert {run.data.tags["content_sha256"][0] for run in all_runs(tmp_path)} == {"b", "e"}


def test_what_is_missing_is_named_and_added_when_it_is_there(tmp_path, publish):
    """A model that neither cache nor remote has leaves a run that says so, until it turns up."""
    graph = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").unlink()
    first = publish()
    assert first.model_version == ""
    assert all_runs(tmp_path)[0].data.tags["missing"] == "model.onnx"
    (tmp_path / "model.onnx").write_bytes(graph)
    second = publish()
    assert (second.run_id, second.model_version) == (first.run_id, "1")
    assert "missing" not in all_runs(tmp_path)[0].data.tags


def test_many_first_starts_at_once_make_one_store(tmp_path, environment):
    """Processes that find no store race to make it; the lock lets one of them."""
    code = (
        "from pathlib import Path; from pipeline.tracking import store;"
        f"print(store.experiment(Path({str(tmp_path)!r}), 'cifar10')[1])"
    )
    started = [start_python(code, environment=environment) for _ in range(4)]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 4, outputs
    assert len({output.strip() for output, _ in outputs}) == 1


def test_a_store_that_cannot_be_reached_is_one_line(publish, monkeypatch):
    """What is missing, and that nothing is lost."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"MLflow store http://127.0.0.1:9: .*run python -m pipeline sync"):
        publish()


class Server:
    """A real MLflow server on a port of this machine."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.environment = folder, environment
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=1):  # noqa: S310  # our own address
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path, environment):
    """A server that is running, and is gone after the test."""
    made = Server(tmp_path / "server", environment)
    made.start()
    yield made
    if made.process.poll() is None:
        made.kill()


def test_training_survives_a_server_that_dies_and_the_run_is_completed_later(
    tmp_path, server, processed, environment, publish, record, monkeypatch
):
    """The server is killed after the first epoch: a warning, a trained model; when it is back, one whole run."""
    changes = SMALL | {"train.epochs": 6}
    parameters = write_params(tmp_path / "train.yaml", changes)
    names = {
        "out": "model",
        "history": "history.csv",
        "layers": "layers.csv",
        "metrics": "train.json",
        "runtime": "runtime.json",
        "checkpoints": "state",
    }
    command = [sys.executable, "-m", "stages.train", f"--params={parameters}", f"--data={processed}"]
    command += [f"--{key}={tmp_path / name}" for key, name in names.items()]
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
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 7

    server.start()
    identity = files.read_json(tmp_path / "runtime.json")["train/fingerprint"]
    published = publish(metrics=record.metrics | {"train/fingerprint": identity})
    (run,) = all_runs(tmp_path)
    assert run.info.run_id == published.run_id
    assert [step for step, _ in curve(tmp_path, run.info.run_id, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"


# Reading models back


@pytest.fixture
def published(tmp_path, publish):
    """The local store with one version of the model, which has the alias champion."""
    publish()
    mlflow.MlflowClient(store.uri(tmp_path)).set_registered_model_alias("cifar10-cnn", "champion", "1")
    return tmp_path / "model.onnx"


def test_a_registered_model_is_read_back_by_version_or_alias(tmp_path, published):
    """The graph that was exported, byte for byte, in the folder asked for; the store stays as it was."""
    artifacts = sorted(path for path in (tmp_path / "mlartifacts").rglob("*"))
    for uri in ("models:/cifar10-cnn/1", "models:/cifar10-cnn@champion"):
        with tempfile.TemporaryDirectory() as folder:
            path = registry.model_file(tmp_path, uri, Path(folder))
            assert path.is_relative_to(folder)
            assert path.read_bytes() == published.read_bytes()
    assert sorted(path for path in (tmp_path / "mlartifacts").rglob("*")) == artifacts


def test_a_model_that_is_not_there_is_one_line_with_those_that_are(tmp_path, published):
    """Another name, version or alias, or none of these."""
    assert published.exists()
    for uri, message in {
        "models:/other/1": r"has no model other; the models there are: cifar10-cnn$",
        "models:/cifar10-cnn/2": r"cifar10-cnn has no version 2; .* are: @champion, /1$",
        "models:/cifar10-cnn/99999999999999999999": r"has no version 9+; .* are: @champion, /1$",
        "models:/cifar10-cnn@loser": r"cifar10-cnn has no alias loser; .* are: @champion, /1$",
        "models:/cifar10-cnn": r"expected models:/NAME@ALIAS or models:/NAME/VERSION$",
        "models:/it's/1": r"MLflow store sqlite:.*so models:/it's/1 cannot be read",
    }.items():
        with pytest.raises(TrackingError, match=message) as caught:
            registry.model_file(tmp_path, uri, tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_asking_for_a_model_makes_no_store(tmp_path):
    """A wrong folder stays as it is."""
    with pytest.raises(TrackingError, match=r"there is no MLflow store sqlite:///.*mlflow.db yet; dvc repro makes it"):
        registry.model_file(tmp_path, "models:/cifar10-cnn/1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_when_a_model_is_asked_for_is_one_line(tmp_path, monkeypatch):
    """With the address and what can be done."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"MLflow store http://127.0.0.1:9: .*MLFLOW_TRACKING_URI names another"):
        registry.model_file(tmp_path, "models:/cifar10-cnn/1", tmp_path)


def test_a_model_comes_from_a_server_too(tmp_path, server, publish, monkeypatch):
    """Downloaded, not found on this machine's disk."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    publish()
    (tmp_path / "copy").mkdir()
    path = registry.model_file(tmp_path, "models:/cifar10-cnn/1", tmp_path / "copy")
    assert path.read_bytes() == (tmp_path / "model.onnx").read_bytes()
    assert path.is_relative_to(tmp_path / "copy")


def test_a_registered_model_of_another_kind_is_one_line(tmp_path, published):
    """It says what the version holds."""
    client = mlflow.MlflowClient(store.uri(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/weights.bin").touch()
    client.create_model_version("cifar10-cnn", (tmp_path / "other").as_uri())
    assert published.exists()
    with pytest.raises(TrackingError, match=r"cifar10-cnn/2: expected a model with one .onnx file, found weights.bin"):
        registry.model_file(tmp_path, "models:/cifar10-cnn/2", tmp_path / "copy")


def test_predicting_with_a_registered_model_does_not_load_pytorch(tmp_path, published, environment):
    """`python -m pipeline predict` with an MLflow URI gives what it gives with the file."""
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipeline import cli\n"
        "try: cli.app()\n"
        "except SystemExit as end: print(end.code, *({'torch', 'mlflow'} & set(sys.modules)))"
    )
    outputs = {}
    for model in ("models:/cifar10-cnn@champion", published.name):
        command = [sys.executable, "-c", code, "predict", "a.png", "--json", "--top=10", f"--model={model}"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        outputs[model] = done.stdout.splitlines()
    assert outputs["models:/cifar10-cnn@champion"] == [outputs["model.onnx"][0], "0 mlflow"]
    assert outputs["model.onnx"][1] == "0"
