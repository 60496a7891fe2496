"""Seeds of a configuration in MLflow: one parent, whose numbers are those of its children."""

import dataclasses
import itertools
import json
import subprocess
import sys

import mlflow
import pytest
import scipy.stats

from pipeline.experiments.configuration import configuration_hash
from pipeline.headline import HEADLINE
from pipeline.tracking import groups, runs, store
from pipeline.tracking.owner import Owner
from tests import tracked

pytestmark = pytest.mark.e2e

ACCURACIES = (0.5, 0.53, 0.57)


@pytest.fixture
def seed(publish, record):
    """A function that publishes a result of a seed, with changed parameters."""

    minutes = itertools.count()

    def published(number: int, accuracy: float = 0.5, *, name: str = "", baseline: str = "c" * 40, **changes) -> str:
        params = {**record.params, "train.seed": number, **{k.replace("__", "."): v for k, v in changes.items()}}
        metrics = {**record.metrics, "test/accuracy": accuracy, "train/fingerprint": f"{number:064d}"}
        minute = next(minutes)
        metrics |= dict.fromkeys(("train/started", "evaluate/ended"), f"2026-01-02T03:{minute:02}:05+00:00")
        content = f"{hash((number, accuracy, *map(repr, changes.values()))) & 0xFFFFFFFF:064d}"
        return publish(Owner(name or f"s-{number}", baseline), params=params, metrics=metrics, content=content).run_id

    return published


def parents(root) -> list[mlflow.entities.Run]:
    client, experiment = store.experiment(root, "cifar10")
    return [run for run in runs.search(client, experiment) if groups.is_parent(run)]


def test_a_parent_has_mean_deviation_and_interval_of_its_seeds(tmp_path, seed):
    """Student's interval, as scipy has it; the description has all headline metrics and links to the runs."""
    children = [seed(number, accuracy) for number, accuracy in enumerate(ACCURACIES)]
    (parent,) = parents(tmp_path)
    found = parent.data.metrics
    assert found["n"] == 3
    assert found["test/accuracy"] == pytest.approx(sum(ACCURACIES) / 3, abs=1e-6)
    assert found["test/accuracy_sd"] == pytest.approx(scipy.stats.tstd(ACCURACIES), abs=1e-6)
    spread = groups.Spread.of(ACCURACIES)
    low, high = scipy.stats.t.interval(0.95, 2, scipy.stats.tmean(ACCURACIES), scipy.stats.sem(ACCURACIES))
    assert spread.interval == pytest.approx((low, high))
    note = parent.data.tags["mlflow.note.content"]
    assert f"| test accuracy | 53.33% | 3.51% | {low:.2%} to {high:.2%} | 3 |" in note
    assert all(child in note for child in children)
    client = mlflow.MlflowClient(store.uri(tmp_path))
    assert {client.get_run(child).data.tags[runs.PARENT_TAG] for child in children} == {parent.info.run_id}
    assert parent.data.params["optimizer.muon.lr"] == "0.01"
    assert "train.seed" not in parent.data.params


def test_no_run_lists_more_than_twenty_metrics(tmp_path, publish, record):
    """With every headline metric there is, beside the curves."""
    full = dict.fromkeys(HEADLINE, 1)
    history = "epoch,lr,train/loss,train/accuracy,val/loss,val/accuracy\n1,0.1,1,0.5,1,0.5\n"
    (tmp_path / "history.csv").write_text(history)
    for number in range(2):
        params = {**record.params, "train.seed": number}
        publish(Owner(f"s-{number}"), params=params, metrics={**record.metrics, **full}, content=f"{number:064d}")
    found = [*parents(tmp_path), *tracked.all_runs(tmp_path)]
    assert len(found) == 3
    assert all(len(run.data.metrics) <= 20 for run in found), [sorted(run.data.metrics) for run in found]


def test_other_parameters_are_another_configuration_named_by_what_differs(tmp_path, seed):
    """From params.yaml of the commit that the experiment started from, the network first; not by the seed."""

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", "params.yaml")
    git("commit", "-qm", "x")
    changed = {"augment__flip": "none", "model__cnn__activation": "tanh", "model__cnn__widths": [4, 4]}
    baseline = git("rev-parse", "HEAD")
    seed(0, baseline=baseline)
    seed(1, baseline=baseline, name="t", **changed)
    seed(2, baseline=baseline, name="u", **changed, inspect__seed=7, data__sha256="a" * 64)  # which separate no rows
    named = {run.info.run_name: run.data.metrics["n"] for run in parents(tmp_path)}
    assert named == {"cnn": 1, "cnn widths=[4, 4] activation=tanh flip=none": 2}


def test_a_result_published_twice_or_replaced_counts_once(tmp_path, seed):
    """The newest of a seed counts."""
    seed(0, 0.5)
    seed(0, 0.5)
    seed(1, 0.6)
    seed(1, 0.7, name="again")
    (parent,) = parents(tmp_path)
    assert parent.data.metrics["n"] == 2
    assert parent.data.metrics["test/accuracy"] == pytest.approx(0.6)


def test_a_run_that_is_gone_no_longer_counts(tmp_path, seed):
    """The parent is what its remaining children are."""
    lost = seed(0, 0.5)
    seed(1, 0.7)
    client = mlflow.MlflowClient(store.uri(tmp_path))
    client.set_tag(lost, groups.GONE_TAG, "gone")
    groups.leave(tmp_path, client, client.get_run(lost))
    (parent,) = parents(tmp_path)
    assert (parent.data.metrics["n"], parent.data.metrics["test/accuracy"]) == (1, pytest.approx(0.7))


def test_of_two_parents_that_machines_created_at_once_one_is_left(tmp_path, seed, record):
    """The older one, whose children are those of both."""
    seed(0)
    (parent,) = parents(tmp_path)
    client = mlflow.MlflowClient(store.uri(tmp_path))
    tags = {groups.KIND_TAG: groups.KIND, groups.PARENT_OF_TAG: configuration_hash(record)}
    client.create_run(parent.info.experiment_id, tags=tags)
    assert len(parents(tmp_path)) == 2
    seed(1)
    (left,) = parents(tmp_path)
    assert (left.info.run_id, left.data.metrics["n"]) == (parent.info.run_id, 2)


def test_workers_that_finish_at_the_same_moment_leave_one_complete_parent(tmp_path, publish, record, environment):
    """Four processes, each of which publishes a seed of its own."""
    publish(content="9" * 64)  # the store and its model exist
    (tmp_path / "record.json").write_text(json.dumps(dataclasses.asdict(record)))
    code = (
        "import json, sys; from pathlib import Path; from tests import tracked;"
        "folder, number = Path(sys.argv[1]), int(sys.argv[2]);"
        "fields = json.loads((folder / 'record.json').read_text());"
        "fields['params']['train.seed'] = number; fields['content'] = f'{number:064d}';"
        "tracked.publish(folder, tracked.Results(**fields), tracked.Owner(f's-{number}'))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], env=environment)
        for number in range(1, 5)
    ]
    assert [process.wait() for process in started] == [0] * 4
    (parent,) = parents(tmp_path)
    assert parent.data.metrics["n"] == 5
    assert len(tracked.all_runs(tmp_path)) == 5


def test_a_study_nests_configurations(tmp_path, seed):
    """The study's run is the parent of the parents."""
    run_id = seed(0)
    client, experiment = store.experiment(tmp_path, "cifar10")
    study = client.create_run(experiment)
    groups.adopt(client, client.get_run(run_id), study.info.run_id)
    (parent,) = parents(tmp_path)
    assert parent.data.tags[runs.PARENT_TAG] == study.info.run_id
    assert client.get_run(run_id).data.tags[runs.PARENT_TAG] == parent.info.run_id
