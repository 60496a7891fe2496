"""Checks of the installation and the repository, and the command that fixes each problem: what `doctor` prints."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pipeline.config import loading
from pipeline.config.schema import TrackingParams
from pipeline.errors import PipelineError
from pipeline.experiments.repository import Repository

PACKAGES = ("dvc", "mlflow", "torch", "onnx", "onnxruntime", "numpy")
CHECKPOINTS = ".checkpoints"
LEFT_OVER_SECONDS = 24 * 3600
"""Age from which the state of an unfinished training counts as left over."""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        what: what was found, in one line.
        fix: the command that fixes it, or what to do; empty if there is no problem.
    """

    what: str
    fix: str = ""


def report(root: Path) -> bool:
    """Print the findings, each problem with its fix; return whether there are no problems.

    Raises:
        ParamsError: there are mistakes in params.yaml.
        PipelineError: the folder is no DVC repository under git.
    """
    settings = loading.load(root / "params.yaml").tracking
    console = Console(highlight=False, soft_wrap=True)
    with Repository(root) as repository:
        findings = examine(repository, settings)
    for finding in findings:
        mark = "[bold red]problem[/]" if finding.fix else "     [green]ok[/]"
        console.print(f"{mark}  {escape(finding.what)}")
        if finding.fix:
            console.print(f"{'':>9}{escape(finding.fix)}", style="bold")
    return not any(finding.fix for finding in findings)


def examine(repository: Repository, settings: TrackingParams) -> list[Finding]:
    """Run all checks; they change nothing, but make an MLflow store where there is none."""
    return [
        *_machine(),
        *(_store(repository, settings) if settings.enabled else [Finding("MLflow: off (tracking.enabled is false)")]),
        *_queue(repository),
        *_checkpoints(repository),
    ]


def _machine() -> Iterator[Finding]:
    import platform

    from pipeline.hardware import device
    from pipeline.models.common import numerics

    yield Finding(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    place = device.choose("auto")
    facts = device.describe(place)
    precision = numerics.choose_precision("auto", place)
    yield Finding(f"trains on {place.type} ({facts['device_name']}), {facts['threads']} threads, in {precision}")


def _store(repository: Repository, settings: TrackingParams) -> Iterator[Finding]:
    from pipeline.tracking import store, sync

    root = repository.root
    try:
        with store.errors(root, "start the server, or name another with MLFLOW_TRACKING_URI"):
            client, experiment = store.experiment(root, settings.experiment)
            place = client.get_experiment(experiment).artifact_location
            plan = sync.plan(repository, settings.model_dump())
    except PipelineError as error:
        yield Finding(str(error), "MLFLOW_TRACKING_URI=... python -m pipeline doctor")
        return
    yield Finding(f"MLflow store {store.uri(root)}, artifacts in {place}")
    wrong = {
        "create": "{} has results, but no run in MLflow",
        "complete": "the run of {} lacks something that is there now",
        "rename": "a run goes by an experiment's old name: {}",
        "promote": "the model registry has lost the alias {}",
        "gone": "the run {} belongs to an experiment that is gone",
    }
    for change in plan.changes:
        if change.verb in wrong:
            yield Finding(wrong[change.verb].format(change.name), "python -m pipeline sync")
    # That a run does not name its commits yet is no fault: the experiment's own is made after the run.
    fine = plan.unchanged + sum(change.verb == "tag" for change in plan.changes)
    yield Finding(f"{fine} results in git have just the run they should have")


def _queue(repository: Repository) -> Iterator[Finding]:
    """A task whose worker is gone stays "Running" for DVC (its issues 10562, 10673): nothing will ever finish it."""
    logging.getLogger("kombu").setLevel(logging.ERROR)  # it warns that DVC's queue, a folder, names no host
    queue = repository.dvc.experiments.celery_queue
    tasks = queue.status()
    running = [task for task in tasks if task["status"] == "Running"]
    counts = {state: sum(task["status"] == state for task in tasks) for state in ("Running", "Queued", "Failed")}
    workers = queue.worker_status() if counts["Running"] or counts["Queued"] else {}
    if running and not workers:
        for task in running:
            name = task["name"] or task["rev"][:7]
            yield Finding(
                f"queue: {name} is said to be running, but no worker is there",
                f"dvc queue kill {name}; then queue it again: its training goes on where it stopped",
            )
        return
    for task in tasks:
        if task["status"] == "Failed":
            name = task["name"] or task["rev"][:7]
            yield Finding(f"queue: {name} failed", f"dvc queue logs {name} says why; dvc queue remove {name} drops it")
    if counts["Queued"] and not workers:
        yield Finding(f"queue: {counts['Queued']} tasks wait and no worker is there", "dvc queue start -j 2")
    yield Finding(f"queue: {counts['Running']} running, {counts['Queued']} waiting, {counts['Failed']} failed")


def _checkpoints(repository: Repository) -> Iterator[Finding]:
    folder = repository.root / CHECKPOINTS
    states = sorted(folder.glob("*/state.safetensors")) if folder.exists() else []
    for state in states:
        age = time.time() - state.stat().st_mtime
        name = f"{CHECKPOINTS}/{state.parent.name[:12]}…: a training that has not ended, {_duration(age)} old"
        fix = f"rm -r {CHECKPOINTS}/{state.parent.name}  (or the same command again: it goes on where it stopped)"
        yield Finding(name, fix if age > LEFT_OVER_SECONDS else "")
    if not states:
        yield Finding("no training was left unfinished")


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
