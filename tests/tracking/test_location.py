"""A repository that is moved, renamed or copied keeps its store: artifacts are read and written where it is now."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from pipeline.experiments.repository import Repository
from pipeline.tracking import command, registry, store
from tests.forge import Forge
from tests.tracked import exported

pytestmark = pytest.mark.e2e


@pytest.fixture
def as_if_new(monkeypatch):
    """A function that makes this process as one that has just begun: MLflow keeps the address of the last store."""
    return lambda: monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def moved(tmp_path, empty_store, capsys, as_if_new) -> Path:
    """A repository with two published experiments that is somewhere else now."""
    forge = Forge(tmp_path / "before", images=2000)
    shutil.copyfile(empty_store, forge.folder / empty_store.name)
    for number, name in enumerate(("one", "two")):
        predicted = forge.right(range(100 + number))
        forge.experiment(name, predicted=predicted, outputs={"export/model.onnx": exported()})
    command.sync(forge.folder, (), dry_run=False)
    command.promote(forge.folder, "one", "champion", force=True)
    capsys.readouterr()
    as_if_new()
    return forge.folder.rename(tmp_path / "new name")


def addresses(folder: Path) -> str:
    """All text of the database."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return "\n".join(database.iterdump())


def test_a_moved_repository_reads_and_writes_its_artifacts_where_it_is(moved, tmp_path, capsys):
    """Promote and predict read them, a new run writes there, one note says what was done, and only once."""
    command.promote(moved, "two", "champion", force=True)
    assert "champion is version 2" in capsys.readouterr().out
    with Repository(moved) as repository:
        found = registry.model_file(repository.root, "models:/cifar10-cnn@champion", tmp_path / "copy")
    assert found.read_bytes() == exported()
    client, experiment = store.experiment(moved, "cifar10")
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "new", "new.txt")
    assert (moved / f"mlartifacts/cifar10/{run.info.run_id}/artifacts/new.txt").read_text() == "new"
    assert not (tmp_path / "before").exists()
    assert str(tmp_path / "before") not in addresses(moved)
    store.client(moved)
    assert capsys.readouterr().err == ""


def test_a_copy_has_a_store_of_its_own(moved, tmp_path, as_if_new):
    """What is done in it leaves the other as it was."""
    store.client(moved)
    assert f"{moved.as_uri()}/" in addresses(moved)
    shutil.copytree(moved, tmp_path / "copy")
    as_if_new()
    client, _ = store.experiment(tmp_path / "copy", "cifar10")
    assert f"{moved.as_uri()}/" not in addresses(tmp_path / "copy")
    assert f"{(tmp_path / 'copy').as_uri()}/" not in addresses(moved)
    assert {run.info.run_name for run in client.search_runs(["1"])} >= {"one", "two"}


def test_mlflows_own_experiment_is_in_the_repository(tmp_path, monkeypatch):
    """Not in the temporary folder in which an experiment created the store."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "temporary")
    client = store.client(tmp_path / "repository")
    own = client.get_experiment("0").artifact_location
    assert own == f"{(tmp_path / 'repository/mlartifacts').as_uri()}/0"


def test_addresses_that_a_user_chose_stay(tmp_path):
    """Another folder, another machine's."""
    client = store.client(tmp_path)
    chosen = ["s3://bucket/mlartifacts/x", "file:///elsewhere/artifacts", "mlflow-artifacts:/x"]
    for number, address in enumerate(chosen):
        client.create_experiment(f"own-{number}", address)
    found = {one.name: one.artifact_location for one in store.client(tmp_path).search_experiments()}
    assert [found[f"own-{number}"] for number in range(3)] == chosen
    assert isinstance(client, mlflow.MlflowClient)


def test_a_linked_path_to_the_repository_is_the_same_place(tmp_path, capsys, as_if_new):
    """Nothing is rewritten back and forth."""
    (tmp_path / "repository").mkdir()
    (tmp_path / "link").symlink_to("repository")
    for name in ("repository", "link", "repository"):
        as_if_new()
        store.experiment(tmp_path / name, "cifar10")
    assert capsys.readouterr().err == ""
