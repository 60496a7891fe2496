"""MLflow against git and DVC through all that people do to experiments, by the real dvc on a real sqlite store."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from pipeline import headline
from pipeline.experiments.repository import Repository
from tests.clone import Clone

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]  # dozens of stages by the real dvc
SEEDS = "1234"


def sync(clone: Clone, *options: str) -> list[str]:
    return clone(sys.executable, "-m", "pipeline", "sync", *options).splitlines()


def named(clone: Clone) -> dict[str, mlflow.entities.Run]:
    runs = clone.runs()
    found = {run.info.run_name: run for run in runs}
    assert len(found) == len(runs), [run.info.run_name for run in runs]
    return found


def content(clone: Clone) -> dict[str, tuple]:
    """All that a run shows, but for ids and the moments at which points of a curve were logged."""
    client = clone.client()
    shown = {}
    for name, run in named(clone).items():
        curves = {
            key: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        own = {key: value.replace(run.info.run_id, "ID") for key, value in run.data.tags.items()}
        tags = {key: value for key, value in own.items() if key not in ("mlflow.user", "mlflow.parentRunId")}
        versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
        registered = [(v.version, v.description, v.tags) for v in versions]
        files = sorted(
            file.path for folder in ("", "figures") for file in client.list_artifacts(run.info.run_id, folder)
        )
        times = run.info.end_time
        shown[name] = (run.info.status, run.data.params, run.data.metrics, curves, tags, registered, files, times)
    return shown


@pytest.fixture(scope="module")
def clone(tmp_path_factory, finished, environment) -> Clone:
    """A clone in which a queue of four was worked off by three workers, on a store that did not exist before.

    The last, `learned`, has the pictures of what a network has learned, the others have none.
    """
    made = Clone.new(tmp_path_factory.mktemp("queue") / "repository", environment, cache=finished.cache)
    queue = ("dvc", "exp", "run", "--queue")
    made(*queue, "-S", f"train.seed={','.join(SEEDS[:-1])}")
    made(*queue, "-n", "learned", "-S", f"train.seed={SEEDS[-1]}", "-S", "inspect.enabled=true")
    made("dvc", "queue", "start", "-j", "3")
    for _ in range(1600):
        tasks = [line.split() for line in made("dvc", "queue", "status").splitlines()[1:] if line.strip()]
        states = [state for task in tasks for state in task if state in ("Queued", "Running", "Success", "Failed")]
        if states.count("Success") + states.count("Failed") == len(SEEDS):
            break
        time.sleep(2)
    made("dvc", "queue", "stop", "--kill")
    assert states == ["Success"] * len(SEEDS), made("dvc", "queue", "status")
    return made


def test_a_queue_of_four_on_a_fresh_store_makes_four_whole_runs(clone):
    """None twice, no curve with a gap, no artifact missing."""
    found = named(clone)
    assert sorted(run.data.params["train.seed"] for run in found.values()) == list(SEEDS)
    for _, _, metrics, curves, tags, registered, files, _ in content(clone).values():
        assert tags["complete"] == "true"
        assert [step for step, _ in curves["train/loss"]] == [1, 2]
        assert 0 < metrics["test/accuracy"] <= 1
        assert len(registered) == 1
        assert {"MODEL_CARD.md", "history.csv", "params.yaml", "predictions.csv", "figures/confusion.png"} <= set(
            files
        )
    assert set(found) == set(clone("dvc", "exp", "list", "--name-only").split())
    (parent,) = clone.configurations()
    assert parent.data.metrics["n"] == len(SEEDS), "three workers finished at about the same moment"
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}


def test_results_of_revisions_can_be_shown_and_compared(clone):
    """`python -m pipeline show` and DVC's own diffs read what the stages wrote."""
    other = min(set(named(clone)) - {"learned"})
    shown = clone(sys.executable, "-m", "pipeline", "show", "learned")
    assert "test accuracy" in shown
    assert "accuracy on corrupted images" in shown
    assert "shapes10" in shown
    with Repository(clone.folder) as repository:
        one, two = (repository.results(repository.resolve(name)).metrics for name in ("learned", other))
    assert one["train/loss"] != two["train/loss"]
    assert one["model/parameters"] == two["model/parameters"]
    difference = clone("dvc", "metrics", "diff", "learned", other, "--json")
    changed = {key for metrics in json.loads(difference).values() for key in metrics}
    assert "val/loss" in changed
    assert changed <= set(headline.SHOWN) - {"model/parameters", "model/macs"}
    drawn = clone("dvc", "plots", "diff", "learned", other, "-o", "dvc_plots")
    assert "failed" not in drawn, f"{other} has no pictures of what it has learned"
    page = (clone.folder / "dvc_plots/index.html").read_text()
    for title in ("Loss", "Accuracy", "Confusion", "confusion.png", "embedding.png"):
        assert title in page
    assert "shifts.csv" not in page
    assert "error: nowhere: unknown Git revision 'nowhere'" in clone(
        sys.executable, "-m", "pipeline", "show", "nowhere", code=1
    )


def test_sync_follows_what_was_done_to_experiments(clone):
    """Renamed, removed, made a branch, applied and committed: each has its one run, under its present name."""
    first, second, third, fourth = sorted(named(clone))
    sync(clone)
    before = named(clone)
    clone("dvc", "exp", "rename", first, "renamed")
    clone("dvc", "exp", "remove", second)
    clone("dvc", "exp", "branch", third, "kept")
    clone("dvc", "exp", "apply", fourth)
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "-m", "The fourth")
    planned = sync(clone, "--dry-run")
    assert named(clone).keys() == before.keys()
    assert [line.removeprefix("would ") for line in planned] == sync(clone)
    assert sorted(line.removeprefix("would ") for line in planned if not line.startswith("skipped")) == sorted(
        [f"rename {first} to renamed", f"gone {second}", f"tag {fourth}"]
    )
    after = named(clone)
    assert set(after) == set(before) - {first} | {"renamed"}
    assert after["renamed"].info.run_id == before[first].info.run_id
    assert after["renamed"].data.tags["DVC_EXP_NAME"] == "renamed"
    assert after[second].data.tags["dvc_experiment"] == "gone"
    assert clone("git", "rev-parse", "HEAD").strip() in after[fourth].data.tags["revisions"]
    assert sync(clone)[-1].startswith("nothing to do: 3 results have their run")
    (parent,) = clone.configurations()
    assert parent.data.metrics["n"] == 3, "the removed one no longer counts"


def test_a_lost_store_is_rebuilt_from_git_and_dvc(clone):
    """Params, metrics, curves, tags, files, registered versions, times: equal to what was there."""
    gone = {name for name, run in named(clone).items() if "dvc_experiment" in run.data.tags}
    before = {name: shown for name, shown in content(clone).items() if name not in gone}
    clone.lose_store()
    assert sum(line.startswith("create ") for line in sync(clone)) == len(before) == len(SEEDS) - 1
    after = content(clone)
    assert after.keys() == before.keys()
    numbers = sorted(before, key=lambda name: int(before[name][5][0][0]))
    assert sorted(after, key=lambda name: int(after[name][5][0][0])) == numbers
    for name, shown in after.items():
        for position, part in enumerate(shown):
            if position == 5:  # the numbers start anew, as a removed experiment has none
                assert [version[1:] for version in part] == [version[1:] for version in before[name][5]]
            else:
                assert part == before[name][position], name
    (parent,) = clone.configurations()
    assert parent.data.metrics["n"] == 3
    assert sync(clone)[-1].startswith("nothing to do: 3 results have their run")


def test_a_killed_training_ends_as_one_run_with_a_whole_curve(clone):
    """SIGKILL to dvc and all it started, then the same command: neither a gap nor a repeat, nor a second run."""
    epochs = 120  # long enough that MLflow shows the first before the last is over
    command = ("dvc", "exp", "run", "-n", "killed", "-S", f"train.epochs={epochs}", "-S", "train.seed=9")
    started = subprocess.Popen(
        command, cwd=clone.folder, env=clone.environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not any(run.info.run_name == "killed" and len(run.data.metrics) for run in clone.runs()):
            assert started.poll() is None
            time.sleep(0.2)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    assert list(Path(clone.folder / ".checkpoints").iterdir())
    clone("git", "checkout", "-q", ".")
    clone(*command)
    _, params, _, curves, tags, *_ = content(clone)["killed"]
    assert tags["complete"] == "true"
    for key in ("train/loss", "val/accuracy"):
        assert [step for step, _ in curves[key]] == list(range(1, epochs + 1))
    assert params["train.epochs"] == str(epochs)
    assert not list(Path(clone.folder / ".checkpoints").iterdir())


def test_a_model_that_nobody_has_is_named(clone):
    """With the cache gone, a rebuilt run has numbers and curves no more than git holds, and says what it lacks."""
    shutil.rmtree(clone.folder / ".dvc/cache")
    clone.lose_store()
    assert "create renamed" in sync(clone)
    run = named(clone)["renamed"]
    missing = run.data.tags["missing"].split()
    assert {"export/model.onnx", "model/history.csv", "results/figures"} <= set(missing)
    assert 0 < run.data.metrics["test/accuracy"] <= 1
    assert sync(clone)[-1].startswith("nothing to do")
