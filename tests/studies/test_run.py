"""A study by the real dvc in a clone: interrupted, finished, called again, with trainings that diverge and fail."""

import os
import signal
import sys
import time

import pytest

from pipeline.errors import ResultsError
from pipeline.experiments.repository import Repository
from pipeline.studies import existing
from pipeline.studies.collected import Collected
from pipeline.studies.plan import Plan
from tests.clone import Clone
from tests.study_plans import edit, made

# Longer than anything a clone needs, whatever else the machine does.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
STUDY = (sys.executable, "-m", "pipeline", "study")
QUICK = ("pooling", "--set=train.epochs=1", "--set=model.cnn.norm=none")
# As few experiments as the study's analysis needs.
SMALLER = {"small__seeds": [0], "variants__stride": None}


@pytest.fixture(scope="module")
def clone(tmp_path_factory, finished, environment) -> Clone:
    """A repository in which the study `pooling` was ended by Ctrl-C, finished, and called once more."""
    cloned = Clone.new(tmp_path_factory.mktemp("clone") / "repository", environment, cache=finished.cache)
    edit(cloned.folder, "pooling", **SMALLER)
    cloned.commit("a small study")
    cloned.preview = cloned(*STUDY, *QUICK, "--dry-run")
    first = cloned.begin(*STUDY, *QUICK)
    while not any("Running stage" in log.read_text() for log in (cloned.folder / ".studies").glob("pooling/*.log")):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    cloned.interrupted, _ = first.communicate(timeout=120)
    cloned.interrupted_code = first.returncode
    cloned.finished = cloned(*STUDY, *QUICK, "--jobs=2")
    cloned.pages = pages(cloned)
    cloned.again = cloned(*STUDY, *QUICK)
    return cloned


def pages(clone: Clone) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((clone.folder / "docs/studies").iterdir())}


def experiments(clone: Clone) -> set[str]:
    with Repository(clone.folder) as repository:
        return {found.name for found in repository.experiments()}


def of_clone(clone: Clone, *given: str) -> Plan:
    return made(clone.folder, overrides=[*(option.removeprefix("--set=") for option in QUICK[1:]), *given])


def test_ctrl_c_ends_a_study_in_order_and_the_same_command_goes_on(clone):
    """Nothing is left over, a line says what to do, and no experiment runs twice."""
    assert clone.interrupted_code == 130
    assert "interrupted with 0 of 3 experiments finished; the same command goes on" in clone.interrupted
    assert "3 of 3 experiments are to be run" in clone.preview
    assert clone.finished.count("started") == clone.finished.count("complete  test accuracy") == 3
    assert experiments(clone) == {one.name for one in of_clone(clone).experiments}
    assert not list((clone.folder / ".dvc/tmp/exps/standalone").glob("tmp*"))


def test_a_finished_study_runs_nothing_more_and_writes_the_same_bytes(clone):
    """The page holds what the experiments recorded."""
    assert "3 experiments, 0 of them to be run" in clone.again
    assert "started" not in clone.again
    assert pages(clone) == clone.pages
    assert {*clone.pages} == {"pooling.md", "pooling.png"}
    text = clone.pages["pooling.md"].decode()
    with Repository(clone.folder) as repository:
        for one in of_clone(clone).experiments:
            accuracy = repository.results(repository.resolve(one.name)).metrics["test/accuracy"]
            assert f"| {accuracy * 100:.2f} |" in next(row for row in text.splitlines() if f"| {one.variant} |" in row)
        baseline = repository.resolve("HEAD").sha[:7]
    assert "data: shapes10; 500 training, 100 validation and 1,000 test images" in text
    assert f"commit {baseline}" in text
    assert "--set train.epochs=1 --set model.cnn.norm=none\n" in text
    assert str(clone.folder) not in text


def test_every_experiment_is_a_child_of_the_studys_run(clone):
    """The parent says what was judged, and how."""
    parent, children = clone.family("pooling")
    assert {run.info.run_name for run in children} == {one.name for one in of_clone(clone).experiments}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert f"**This {parent.data.tags['verdict']}**" in clone.pages["pooling.md"].decode()
    assert parent.data.metrics["macs_ratio"] == pytest.approx(1753728 / 7258752, rel=1e-3)


def test_any_file_of_an_experiment_can_be_read(clone):
    """Of git, of DVC's cache, and one in a folder that DVC keeps."""
    planned = of_clone(clone)
    with Repository(clone.folder) as repository:
        known = existing.by_name(repository)
        found = {one.name: existing.find(repository, one, known) for one in planned.experiments}
        results = Collected(repository, planned, found, {})
        name = planned.experiments[0].name
        assert results.read(name, "model/history.csv").startswith(b"epoch,")
        assert results.read(name, "results/figures/training.png").startswith(b"\x89PNG")
        assert b"test/accuracy" in results.read(name, "metrics/evaluate.json")
        assert list(results.history(name)["epoch"]) == [1.0]
        with pytest.raises(ResultsError, match=r"nothing\.csv is neither in DVC's cache nor in a remote"):
            results.read(name, "nothing.csv")


def test_an_experiment_with_other_parameters_is_not_taken(clone):
    """Even if it has the name of the one that is wanted."""
    planned, other = of_clone(clone).experiments[0], of_clone(clone, "optimizer.muon.lr=0.02").experiments[0]
    with Repository(clone.folder) as repository:
        known = existing.by_name(repository)
        assert existing.find(repository, planned, known).revision.name == planned.name
        assert existing.find(repository, other, known) is None
        assert existing.find(repository, other, {other.name: known[planned.name]}) is None


def test_a_training_that_diverges_is_a_result_and_not_run_again(clone):
    """Only what is missing runs; nothing can be said of the accuracy, and the page says why."""
    wild = {"optimizer.name": "sgd", "optimizer.sgd.lr": 1000, "train.warmup": 0.0}
    edit(clone.folder, "pooling", **SMALLER, small__variants={"none": wild})
    said = clone(*STUDY, *QUICK)
    assert "3 experiments, 1 of them to be run" in said
    assert said.count("  diverged  training stopped at epoch 1") == 1
    text = (clone.folder / "docs/studies/pooling.md").read_text()
    assert "**This is undecided**" in text
    assert text.count("diverged: training stopped at epoch 1, step") == 1
    assert "0 (1 diverged)" in next(row for row in text.splitlines() if row.startswith("| none | 7,258,752"))
    assert "3 experiments, 0 of them to be run" in clone(*STUDY, *QUICK)
    assert "diverged" in clone(*STUDY, *QUICK, "--dry-run")
    assert not list((clone.folder / ".checkpoints").glob("*/*"))


def test_an_experiment_that_fails_is_told_in_one_line_and_no_page_is_written(clone):
    """It is tried again the next time: whatever it was may have been mended."""
    edit(clone.folder, "pooling", **SMALLER, small__variants={"average": {"train.device": "cuda:99"}})
    before = pages(clone)
    for _ in range(2):
        said = clone(*STUDY, *QUICK, code=1)
        assert "3 experiments, 1 of them to be run" in said
        assert said.splitlines()[-1].startswith("error: 1 of 3 experiments failed, pooling-average-s0-")
        assert "train.device: found cuda:99, but this machine has" in said.splitlines()[-1]
    assert pages(clone) == before
