"""Searches by the real dvc in a clone of this repository: ended and gone on with, given up early, wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from pipeline.config import loading
from pipeline.errors import TuningError
from pipeline.experiments.repository import Repository
from pipeline.search import space
from pipeline.search.study import BASE, Plan, Study
from pipeline.tracking import live, store
from pipeline.tracking.studies import StudyRun
from tests.clone import Clone, ran

# Long enough to be interrupted or given up before it ends, whatever the machine.
EPOCHS = 1000
# What a network this small learns something from, and nothing at a rate of 1e-9.
LEARNING = {
    "optimizer.name": "sgd",
    "optimizer.sgd.weight_decay": 0.0,
    "optimizer.sgd.lr": 0.1,
    "train.epochs": EPOCHS,
    "evaluate.robustness": 0,
}
# Several pipelines one after the other; a machine that is busy with other things needs its time.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

SETTINGS = {"experiment": "cifar10", "model": "cifar10-cnn"}
TUNE = (sys.executable, "-m", "pipeline", "tune")


@pytest.fixture(scope="module")
def clone(tmp_path_factory, finished, environment) -> Clone:
    """A repository in which no training has run."""
    folder = tmp_path_factory.mktemp("clone") / "repository"
    return Clone.new(folder, environment, LEARNING, cache=finished.cache)


def write_space(clone: Clone, name: str, space: dict) -> str:
    """Write a space and return the option that names it."""
    (clone.folder.parent / name).write_text(json.dumps(space))  # JSON is YAML, too
    return f"--space=../{name}"


def start(clone: Clone, *options: str) -> subprocess.Popen:
    """Start a search."""
    return clone.begin(*TUNE, *options)


def names(clone: Clone) -> set[str]:
    with Repository(clone.folder) as repository:
        return {experiment.name for experiment in repository.experiments()}


def wait_for_epoch(clone: Clone, search: subprocess.Popen, report: str) -> None:
    """Wait until a trial's training has reported an epoch."""
    path = clone.folder / ".tune" / report
    while not (path.exists() and '"epoch"' in path.read_text()):
        assert search.poll() is None, search.stdout.read()
        time.sleep(0.05)


def trials(clone: Clone, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{clone.folder}/.tune/{name}.db").trials


def workspaces(clone: Clone) -> list[Path]:
    """Return the temporary folders that DVC runs experiments in."""
    return list((clone.folder / ".dvc/tmp/exps/standalone").glob("tmp*"))


def states(clone: Clone) -> list[Path]:
    """Return the trainings that could go on."""
    return list((clone.folder / ".checkpoints").glob("*/*"))


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_study_that_is_opened_again_goes_on_where_it_was(clone, sampler):
    """Same parameters, opened once or three times; what was running when it was closed is there again, unchanged."""
    write_space(clone, "mixed.yaml", {"train.epochs": {"low": 1, "high": 40}, "augment.flip": ["none", "random"]})
    base = loading.read(clone.folder / "params.yaml")
    searched = space.read(clone.folder.parent / "mixed.yaml", base)

    def draw(name: str, opened: int) -> list[dict]:
        plan = Plan(name, 40, 1, sampler, seed=3, startup=5)
        for _ in range(opened):
            study = Study(clone.folder, plan, searched)
            for number, trial in enumerate(study.unfinished()):
                assert number == 0, "more than the one that was left running"
                study.optuna.tell(trial, trial.params["train.epochs"])
            for number in range(30 // opened):
                trial = study.ask()
                if number < 30 // opened - 1:
                    study.optuna.tell(trial, trial.params["train.epochs"])
        return [found.params for found in study.optuna.trials]

    once, thrice = draw(f"once-{sampler}", 1), draw(f"thrice-{sampler}", 3)
    assert once == thrice
    assert len(once) == 30
    epochs = [point["train.epochs"] for point in once]
    if sampler == "tpe":  # has learnt what is good
        assert sum(epochs[-10:]) > sum(epochs[:10])
    else:  # repeats little or nothing
        assert len({json.dumps(point) for point in once}) > (20 if sampler == "random" else 29)


@pytest.fixture(scope="module")
def searched(clone) -> Clone:
    """A search of four trials, two at once: ended by Ctrl-C, then killed, then finished by the same command."""
    # A parameter without effect: half of the trainings come from DVC's cache.
    space = {"model.mlp.dropout": [0.0, 0.5], "optimizer.sgd.lr": {"low": 0.05, "high": 0.1, "step": 0.05}}
    options = (write_space(clone, "search.yaml", space), "--name=search", "--sampler=grid", "--trials=4", "--jobs=2")
    first = start(clone, *options)
    wait_for_epoch(clone, first, "search/search-0000.jsonl")
    os.killpg(first.pid, signal.SIGINT)
    clone.interrupted, _ = first.communicate(timeout=120)
    clone.interrupted_code = first.returncode
    clone.left = (workspaces(clone), states(clone), [trial.state for trial in trials(clone, "search")])

    second = start(clone, *options)
    log = clone.folder / ".tune/search/search-0000.log"
    while log.read_text().count("Running stage 'train'") < 2:
        assert second.poll() is None, second.stdout.read()
        time.sleep(0.05)
    second.kill()
    second.communicate()
    clone.finished = clone(*TUNE, *options)
    clone.again = clone(*TUNE, *options)
    return clone


def test_a_study_from_before_an_architecture_was_added_goes_on(clone):
    """Its section decides no trial; a parameter with another value does."""
    base = loading.read(clone.folder / "params.yaml")
    write_space(clone, "older.yaml", {"optimizer.sgd.lr": [0.1, 0.2]})
    searched = space.read(clone.folder.parent / "older.yaml", base)
    plan = Plan("older", 2, 1, "random", seed=0, startup=5)
    study = Study(clone.folder, plan, searched)
    began = json.loads(study.optuna.user_attrs[BASE])
    older = {key: value for key, value in began.items() if not key.startswith("model.mlp.")}
    assert len(older) < len(began)
    study.optuna.set_user_attr(BASE, json.dumps(older))
    assert Study(clone.folder, plan, searched).base() == base
    study.optuna.set_user_attr(BASE, json.dumps(older | {"data.train_share": 0.5}))
    with pytest.raises(TuningError, match=r"data.train_share: found 1.0, but the search older was started with 0.5"):
        Study(clone.folder, plan, searched)


def test_ctrl_c_ends_a_search_in_order(searched):
    """The training is saved, DVC's temporary folder is gone, the trial is kept as running, and one line says so."""
    folders, saved, kept = searched.left
    assert searched.interrupted_code == 130
    assert "interrupted with 0 of 4 trials finished; the same command continues" in searched.interrupted
    assert folders == []
    assert saved
    assert set(kept) == {TrialState.RUNNING}


def test_an_interrupted_search_ends_with_all_its_trials_and_none_twice(searched):
    """Four trials, four experiments; the first went on at its last epoch, and was waited for when it was killed."""
    assert "search-0000  still running from an earlier start: waiting for it" in searched.finished
    assert f"epoch   1/{EPOCHS}" in (log := (searched.folder / ".tune/search/search-0000.log").read_text())
    assert "restored" in log
    assert "(4/4 finished)" in searched.finished
    found = trials(searched, "search")
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 4
    assert {name for name in names(searched) if name.startswith("search")} == {
        f"search-{number:04d}" for number in range(4)
    }
    assert len({json.dumps(trial.params) for trial in found}) == 4
    trained = [(searched.folder / f".tune/search/search-000{number}.log").read_text() for number in range(4)]
    assert ["Stage 'train' is cached" in log for log in trained] == [False, False, True, True]
    for trial in found:
        with Repository(searched.folder) as repository:
            revision = repository.resolve(f"search-{trial.number:04d}")
            record = repository.results(revision)
            history = repository.history(revision, record)
        assert trial.value == record.metrics["val/accuracy"] == history[-1]["val/accuracy"]
        assert list(trial.intermediate_values.values()) == [row["val/accuracy"] for row in history]
    assert workspaces(searched) == states(searched) == []


def test_every_trial_is_a_child_of_the_studys_run(searched):
    """One run for each, none left over; the parent says what was searched and what was best."""
    parent, children = searched.family("search")
    assert sorted(run.info.run_name for run in children) == [f"search-{number:04d}" for number in range(4)]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    best = max(trials(searched, "search"), key=lambda trial: (trial.value, -trial.number))
    assert parent.data.metrics == {"best/val/accuracy": best.value}
    assert {run.data.tags.get("complete") for run in children} == {"true"}
    assert {run.info.run_name: run.data.metrics["val/accuracy"] for run in children} == {
        f"search-{trial.number:04d}": trial.value for trial in trials(searched, "search")
    }
    assert json.loads(parent.data.params["space.optimizer.sgd.lr"]) == {"low": 0.05, "high": 0.1, "step": 0.05}
    assert parent.data.tags["best.experiment"] == f"search-{best.number:04d}"
    assert float(parent.data.tags["best.optimizer.sgd.lr"]) == best.params["optimizer.sgd.lr"]


def test_a_trial_ends_with_evaluate_and_has_no_model_to_register(searched):
    """Its results are complete without inspect and export, which the best one gets from `dvc repro`."""
    log = (searched.folder / ".tune/search/search-0000.log").read_text()
    assert "Running stage 'evaluate'" in log
    assert not [stage for stage in ("inspect", "export", "track") if f"stage '{stage}'" in log.lower()]
    with Repository(searched.folder) as repository:
        record = repository.results(repository.resolve("search-0000"))
    assert {"preprocess", "train", "evaluate"} <= record.paths.keys()
    assert not {"inspect", "export", "track"} & record.paths.keys()
    _, children = searched.family("search")
    client = searched.client()
    assert not [run for run in children if client.search_model_versions(f"run_id = '{run.info.run_id}'")]
    assert all("test/accuracy" in run.data.metrics for run in children)
    said = searched(sys.executable, "-m", "pipeline", "promote", "search-0000", code=1)
    assert said.startswith(
        "error: search-0000: expected an exported model, found none; dvc exp apply search-0000; dvc "
    )


def test_the_best_experiment_is_applied_and_exported_by_the_command_that_is_printed(searched):
    """Its parameters are then those of params.yaml; no training runs again, and its model can be promoted.

    Nothing was exported here before, so dvc exp apply reports missing files.
    """
    best = max(trials(searched, "search"), key=lambda trial: (trial.value, -trial.number))
    command = searched.finished.rstrip().splitlines()[-1].split(":  ")[1]
    assert command == f"dvc exp apply search-{best.number:04d}; dvc repro"
    output = searched("sh", "-c", command)
    assert ran(output) == ["inspect", "export", "track"]
    applied = loading.load(searched.folder / "params.yaml")
    with Repository(searched.folder) as repository:
        record = repository.results(repository.resolve("workspace"))
    assert record.metrics["val/accuracy"] == best.value
    assert (searched.folder / record.paths["export"]["out"]).stat().st_size == record.metrics["export/onnx_bytes"]
    searched("git", "checkout", "-q", ".")
    searched("git", "clean", "-fdq")
    assert applied.optimizer.sgd.lr == best.params["optimizer.sgd.lr"]
    assert applied.model.mlp.dropout == float(best.params["model.mlp.dropout"])


def test_a_finished_search_runs_nothing_more(searched):
    """The same command prints the best again."""
    assert "started" not in searched.again
    assert searched.again.splitlines()[-1] == searched.finished.splitlines()[-1]


def test_a_study_keeps_its_space_and_its_parameters(searched):
    """Trials under other circumstances can't be compared with those there are; nor can two searches share a name."""
    other = write_space(searched, "other.yaml", {"optimizer.sgd.lr": [0.1, 0.2]})
    said = searched(*TUNE, other, "--name=search", code=1)
    assert said.startswith("error: the search search was started with another space")
    assert len(said.splitlines()) == 1
    file = searched.folder / "params.yaml"
    kept = file.read_text()
    file.write_text(kept.replace(f"epochs: {EPOCHS}", "epochs: 9"))
    said = searched(*TUNE, "--space=../search.yaml", "--name=search", code=1)
    file.write_text(kept)
    expected = f"train.epochs: found 9, but the search search was started with {EPOCHS}"
    assert said.startswith(f"error: params.yaml: {expected}")
    (searched.folder / ".tune/search.db").rename(searched.folder / ".tune/kept")
    said = searched(*TUNE, "--space=../search.yaml", "--name=search", code=1)
    (searched.folder / ".tune/kept").replace(searched.folder / ".tune/search.db")
    assert said.startswith("error: --name: experiments of an earlier search search exist, such as search-0000")


def test_hopeless_trials_are_given_up_and_leave_nothing(searched):
    """A rate of 1e-9 learns nothing; three numbers for two blocks cannot work: neither becomes an experiment.

    They are held against a trial that DVC restored from its cache: its epochs count, though nobody watched them. The
    search is one that a script started in its background, where Ctrl-C is ignored.
    """
    space = {"model.cnn.convs_per_block": [1, [1, 2, 3]], "optimizer.sgd.lr": [0.1, 1e-9]}
    option = write_space(searched, "hopeless.yaml", space)
    background = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    said = searched(*background, *TUNE, option, "--name=hopeless", "--sampler=grid", "--startup=1", "--trials=9")
    assert "Stage 'train' is cached" in (searched.folder / ".tune/hopeless/hopeless-0000.log").read_text()
    assert "hopeless: 1 complete, 3 pruned, 0 failed" in said
    found = trials(searched, "hopeless")
    assert [trial.state for trial in found] == [TrialState.COMPLETE] + [TrialState.PRUNED] * 3
    assert "below the median of the others" in found[1].user_attrs["reason"]
    assert "convs_per_block: found 3 numbers" in found[2].user_attrs["reason"]
    assert {name for name in names(searched) if name.startswith("hopeless")} == {"hopeless-0000"}
    _, children = searched.family("hopeless")
    assert {run.info.run_name: run.info.status for run in children} == {
        "hopeless-0000": "FINISHED",
        "hopeless-0001": "KILLED",
    }
    assert 1 <= len(found[1].intermediate_values) < EPOCHS
    assert workspaces(searched) == states(searched) == []
    assert "hopeless-0001" not in searched("git", "for-each-ref")
    assert searched("git", "status", "--porcelain") == ""


def test_a_search_whose_trials_all_fail_ends(searched):
    """What keeps every trial from running is told once, not tried for ever; without MLflow, if that is off."""
    runs = len(searched.runs())
    stage = searched.folder / "stages/download.py"
    code = stage.read_text()
    stage.write_text("import sys\nsys.exit('error: the network is down')\n")
    file = searched.folder / "params.yaml"
    kept = file.read_text()
    file.write_text(kept.replace("enabled: true", "enabled: false"))
    option = write_space(searched, "failing.yaml", {"optimizer.sgd.lr": {"low": 0.1, "high": 0.2}})
    said = searched(*TUNE, option, "--name=failing", code=1)
    stage.write_text(code)
    file.write_text(kept)
    assert "error: the last 3 trials failed, failing-0002 with: the network is down (" in said
    assert [trial.state for trial in trials(searched, "failing")] == [TrialState.FAIL] * 3
    assert workspaces(searched) == []
    assert len(searched.runs()) == runs


def test_the_run_of_a_study_is_opened_again_and_survives_its_store(tmp_path, monkeypatch, capsys):
    """The same run as long as there is one; a store that breaks in the middle costs one line, not the search."""
    monkeypatch.setenv("DVC_EXP_NAME", "one-0000")
    with live.LiveRun(tmp_path, "cifar10").opened("a" * 64, "cnn") as log:
        log({"epoch": 1, "val/accuracy": 0.5})
    monkeypatch.delenv("DVC_EXP_NAME")
    opened = StudyRun(tmp_path, SETTINGS, "one", None)
    opened.prune("one-0000", "hopeless")
    opened.end("KILLED")
    again = StudyRun(tmp_path, SETTINGS, "one", opened.run_id)
    assert again.run_id == opened.run_id
    assert StudyRun(tmp_path, SETTINGS, "one", "0" * 32).run_id != opened.run_id
    client = mlflow.MlflowClient(store.uri(tmp_path))
    (child,) = client.search_runs([again.experiment], "tags.pruned = 'hopeless'")
    assert child.data.tags["mlflow.parentRunId"] == opened.run_id
    assert child.info.status == "KILLED"
    assert client.get_run(opened.run_id).info.status == "RUNNING"
    assert capsys.readouterr().err == ""
    client.delete_run(opened.run_id)
    again.best("one-0000", 0.5, {"optimizer.sgd.lr": 0.1}, 1)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: MLflow: ")
    assert warning.endswith("; the experiments continue")


def test_a_dry_run_prints_what_the_search_will_try(searched):
    """The very parameters of the first trials, and what cannot work; nothing is written."""
    said = searched(*TUNE, "--space=../search.yaml", "--name=search", "--sampler=grid", "--trials=4", "--dry-run")
    for trial in trials(searched, "search"):
        (line,) = [line for line in said.splitlines() if f"search-{trial.number:04d}" in line]
        assert f"{trial.params['optimizer.sgd.lr']:.4g}" in line
        assert f" {trial.params['model.mlp.dropout']} " in line
    said = searched(*TUNE, "--space=../hopeless.yaml", "--name=new", "--sampler=grid", "--dry-run")
    assert len([line for line in said.splitlines() if "new-000" in line]) == 4
    assert "3 numbers" in said
    assert not list((searched.folder / ".tune").glob("new*"))
