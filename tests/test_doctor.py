"""What `doctor` finds, on repositories in which just that is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline import doctor
from pipeline.config.loading import load
from pipeline.experiments.repository import Repository
from pipeline.tracking import groups, runs, store, sync
from tests.forge import Forge
from tests.paths import ROOT

pytestmark = pytest.mark.e2e


@pytest.fixture
def forge(tmp_path) -> Forge:
    """A repository with one experiment, the code of the stages, and no MLflow store."""
    made = Forge(tmp_path / "repository", images=100)
    made.experiment("one", predicted=made.right(range(10)))
    for name in ("pipeline", "stages"):
        (made.folder / name).symlink_to(ROOT / name)
    return made


def wrong(forge: Forge, **changes) -> dict[str, str]:
    """Return problem -> the command that fixes it."""
    settings = load(forge.folder / "params.yaml").tracking.model_copy(update=changes)
    with Repository(forge.folder) as repository:
        return {finding.what: finding.fix for finding in doctor.examine(repository, settings) if finding.fix}


def test_experiments_without_a_run_are_found_and_sync_mends_them(forge):
    """And a run whose experiment is gone; then nothing is left to do."""
    assert wrong(forge) == {"one has results, but no run in MLflow": "python -m pipeline sync"}
    settings = {"experiment": "cifar10", "model": "cifar10-cnn"}
    with Repository(forge.folder) as repository:
        for change in sync.plan(repository, settings).changes:
            sync.apply(repository, settings, change)
    assert wrong(forge) == {}
    client, experiment = store.experiment(forge.folder, "cifar10")
    for run in (run for run in runs.search(client, experiment) if not groups.is_parent(run)):
        client.delete_tag(run.info.run_id, sync.REVISIONS_TAG)  # as of a run just made, before its commit
    assert wrong(forge) == {}
    ref = forge.git("for-each-ref", "--format=%(refname)", "refs/exps/")
    forge.git("update-ref", "-d", ref)
    assert wrong(forge) == {"the experiment of the run one has been removed": "python -m pipeline sync"}


def test_a_store_that_is_away_is_a_finding(forge, monkeypatch):
    """With its address; everything else is examined all the same."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ((what, mend),) = wrong(forge).items()
    assert what.startswith("MLflow store http://127.0.0.1:9: ")
    assert "MLFLOW_TRACKING_URI" in mend


def test_the_state_of_a_training_long_left_is_found(forge):
    """One of this hour may still be running."""
    state = forge.folder / ".checkpoints/abc/state.safetensors"
    state.parent.mkdir(parents=True)
    state.touch()
    assert wrong(forge, enabled=False) == {}
    two_days_ago = time.time() - 2 * 86400
    os.utime(state, (two_days_ago, two_days_ago))
    ((what, mend),) = wrong(forge, enabled=False).items()
    assert "an unfinished training, 2 days old" in what
    assert mend.startswith("rm -r .checkpoints/abc ")


def test_a_task_whose_worker_is_gone_is_found_and_the_command_given_mends_it(tmp_path, environment):
    """DVC goes on to call it running (its issues 10562 and 10673)."""
    forge = Forge(tmp_path / "queue", images=100)
    (forge.folder / "dvc.yaml").write_text("stages:\n  wait:\n    cmd: sleep 600\n    params: [train.seed]\n")
    forge.git("commit", "-qam", "A stage that takes its time")

    def dvc(*words: str) -> None:
        command = [sys.executable, "-m", "dvc", *words]
        with (tmp_path / "log").open("a") as log:  # a pipe would be held open by the worker
            subprocess.run(command, cwd=forge.folder, env=environment, stdout=log, stderr=log, check=True)

    dvc("exp", "run", "--queue", "-n", "stuck", "-S", "train.seed=5")
    assert list(wrong(forge, enabled=False)) == ["queue: 1 tasks wait, but there is no worker"]
    dvc("queue", "start")
    worker = _process(forge.folder / ".dvc/tmp/exps/celery/dvc-exp-worker-1.pid")
    while not any("sleep" in child.name() for child in worker.children(recursive=True)):
        time.sleep(0.2)
    assert wrong(forge, enabled=False) == {}
    processes = [worker, *worker.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGKILL)
    # DVC takes a killed process for a running one until its new parent has reaped it.
    assert psutil.wait_procs(processes, timeout=120)[1] == []
    ((what, mend),) = wrong(forge, enabled=False).items()
    assert what == "queue: stuck has the status running, but there is no worker"
    assert mend.startswith("dvc queue kill stuck;")
    dvc("queue", "kill", "stuck")
    left = wrong(forge, enabled=False)
    assert set(left) <= {"queue: stuck failed"}
    if left:
        dvc("queue", "remove", "stuck")
    assert wrong(forge, enabled=False) == {}


def _process(pid_file: Path) -> psutil.Process:
    for _ in range(600):
        if pid_file.exists() and pid_file.read_text().strip():
            return psutil.Process(int(pid_file.read_text()))
        time.sleep(0.2)
    raise AssertionError(f"no worker within two minutes: {pid_file}")
