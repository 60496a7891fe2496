"""What MLflow refuses of one result, or what is damaged in one revision, costs that one: all others are published."""

import shutil

import mlflow
import pytest

from pipeline.errors import PipelineError
from pipeline.experiments.repository import Repository
from pipeline.tracking import command, groups, store
from tests.forge import Forge

pytestmark = pytest.mark.e2e


@pytest.fixture
def forge(tmp_path, empty_store) -> Forge:
    """A repository with an empty store."""
    made = Forge(tmp_path / "repository", images=100)
    shutil.copyfile(empty_store, made.folder / empty_store.name)
    return made


def add(forge: Forge, name: str, wrong: int, **params: object) -> None:
    forge.experiment(name, predicted=forge.right(range(wrong)), params=params)


def published(forge: Forge) -> set[str]:
    client = mlflow.MlflowClient(store.uri(forge.folder))
    experiment = client.get_experiment_by_name("cifar10").experiment_id
    runs = client.search_runs([experiment])
    return {run.info.run_name for run in runs if not groups.is_parent(run) and run.info.status == "FINISHED"}


def test_sync_goes_on_after_a_change_that_mlflow_refuses(forge, capsys):
    """A parameter's name that MLflow does not accept: all others have their runs, and the error names that one."""
    add(forge, "first", 1)
    add(forge, "refused", 2, **{"train.50%": 1})
    add(forge, "last", 3)
    with pytest.raises(PipelineError, match=r"^create refused: MLflow store sqlite.*50%"):
        command.sync(forge.folder, (), dry_run=False)
    assert published(forge) == {"first", "last"}
    assert "create last" in capsys.readouterr().out


def test_sync_ends_when_nothing_is_accepted_any_more(forge):
    """As when the server goes: not one timeout for each of a hundred changes."""
    for number in range(1, 6):
        add(forge, f"refused-{number}", number, **{"train.50%": 1})
    with pytest.raises(PipelineError, match=r"3 changes in a row failed, so the rest was not tried$") as caught:
        command.sync(forge.folder, (), dry_run=False)
    assert len(str(caught.value).splitlines()) == command.GIVE_UP + 1


@pytest.mark.parametrize("lock", ["", "stages: [1]", "stages: {train: {cmd: 3}}", "<<<<<<< HEAD"])
def test_a_damaged_revision_costs_its_own_row(forge, capsys, lock):
    """In sync, and in a comparison of all."""
    add(forge, "one", 1)
    add(forge, "two", 2)
    (forge.folder / "dvc.lock").write_text(lock)
    forge.git("add", "-A")
    forge.git("commit", "-q", "-m", "A merge gone wrong")
    command.sync(forge.folder, (), dry_run=False)
    assert published(forge) == {"one", "two"}
    assert "no results: dvc.lock is damaged" in capsys.readouterr().out
    with Repository(forge.folder) as repository:
        assert {revision.name for revision in repository.current(everything=True)} == {"one", "two"}
