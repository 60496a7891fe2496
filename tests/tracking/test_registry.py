"""Registered models read back: the very graph, or a line that says what there is instead."""

import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import registry, store
from tests.paths import ROOT

pytestmark = pytest.mark.e2e


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
        "models:/other/1": r"has no model other; existing models: cifar10-cnn$",
        "models:/cifar10-cnn/2": r"cifar10-cnn has no version 2; .* versions: @champion, /1$",
        "models:/cifar10-cnn/99999999999999999999": r"has no version 9+; .* versions: @champion, /1$",
        "models:/cifar10-cnn@loser": r"cifar10-cnn has no alias loser; .* versions: @champion, /1$",
        "models:/cifar10-cnn": r"expected models:/NAME@ALIAS or models:/NAME/VERSION$",
        "models:/it's/1": r"MLflow store sqlite:.*so models:/it's/1 cannot be read",
    }.items():
        with pytest.raises(TrackingError, match=message) as caught:
            registry.model_file(tmp_path, uri, tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_asking_for_a_model_makes_no_store(tmp_path):
    """A wrong folder stays as it is."""
    with pytest.raises(TrackingError, match=r"no MLflow store sqlite:///.*mlflow.db yet; dvc repro creates it"):
        registry.model_file(tmp_path, "models:/cifar10-cnn/1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_when_a_model_is_asked_for_is_one_line(tmp_path, monkeypatch):
    """With the address and what can be done."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"MLflow store http://127.0.0.1:9: .*MLFLOW_TRACKING_URI selects another"):
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
