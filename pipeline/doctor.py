"""Check the installation and the repository; report problems and the command that fixes each."""

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
"""Age at which the state of an unfinished training is reported."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: what was found, in one line.
        fix: the command that fixes it, or what to do; empty if there is no problem.
    """

    what: str
    fix: str = ""


def examine(repository: Repository, settings: TrackingParams) -> list[Finding]:
    """Run all checks; changes nothing, except that a missing MLflow store is created."""
    return [
        *_machine(),
        *(_store(repository, settings) if settings.enabled else [Finding("MLflow: off (tracking.enabled is false)")]),
        *_queue(repository),
        *_checkpoints(repository),
    ]


def report(root: Path) -> bool:
    """Print all findings, each problem with its fix; return whether there are no problems.

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


def _machine() -> Iterator[Finding]:
    import platform

    from pipeline.hardware import device
    from pipeline.models.common import numerics

    yield Finding(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    chosen = device.choose("auto")
    facts = device.describe(chosen)
    precision = numerics.choose_precision("auto", chosen)
    yield Finding(f"trains on {chosen.type} ({facts['device_name']}), {facts['threads']} threads, in {precision}")


def _store(repository: Repository, settings: TrackingParams) -> Iterator[Finding]:
    from pipeline.tracking import store, sync

    root = repository.root
    try:
        with store.errors(root, "start the server, or name another with MLFLOW_TRACKING_URI"):
            client, experiment = store.experiment(root, settings.experiment)
            artifacts = client.get_experiment(experiment).artifact_location
            plan = sync.plan(repository, settings.model_dump())
    except PipelineError as error:
        yield Finding(str(error), "MLFLOW_TRACKING_URI=... python -m pipeline doctor")
        return
    yield Finding(f"MLflow store {store.uri(root)}, artifacts in {artifacts}")
    problems = {
        "create": "{} has results, but no run in MLflow",
        "complete": "the run of {} is incomplete",
        "rename": "a run has the old name of its experiment: {}",
        "promote": "the model registry lacks the alias {}",
        "gone": "the experiment of the run {} has been removed",
    }
    for change in plan.changes:
        if change.verb in problems:
            yield Finding(problems[change.verb].format(change.name), "python -m pipeline sync")
    # A missing tag with the run's commits is no problem: an experiment's commit is made after its run.
    up_to_date = plan.unchanged + sum(change.verb == "tag" for change in plan.changes)
    yield Finding(f"{up_to_date} results in git have an up-to-date run")


def _queue(repository: Repository) -> Iterator[Finding]:
    """Check the queue; a task without a worker stays "Running" in DVC (its issues 10562, 10673) and never finishes."""
    logging.getLogger("kombu").setLevel(logging.ERROR)  # silences a warning about DVC's queue, a folder
    queue = repository.dvc.experiments.celery_queue
    tasks = queue.status()
    running = [task for task in tasks if task["status"] == "Running"]
    counts = {state: sum(task["status"] == state for task in tasks) for state in ("Running", "Queued", "Failed")}
    workers = queue.worker_status() if counts["Running"] or counts["Queued"] else {}
    if running and not workers:
        for task in running:
            name = task["name"] or task["rev"][:7]
            yield Finding(
                f"queue: {name} has the status running, but there is no worker",
                f"dvc queue kill {name}; then queue it again: its training resumes",
            )
        return
    for task in tasks:
        if task["status"] == "Failed":
            name = task["name"] or task["rev"][:7]
            yield Finding(f"queue: {name} failed", f"dvc queue logs {name} shows why; then dvc queue remove {name}")
    if counts["Queued"] and not workers:
        yield Finding(f"queue: {counts['Queued']} tasks wait, but there is no worker", "dvc queue start -j 2")
    yield Finding(f"queue: {counts['Running']} running, {counts['Queued']} waiting, {counts['Failed']} failed")


def _checkpoints(repository: Repository) -> Iterator[Finding]:
    folder = repository.root / CHECKPOINTS
    states = sorted(folder.glob("*/state.safetensors")) if folder.exists() else []
    for state in states:
        age = time.time() - state.stat().st_mtime
        name = f"{CHECKPOINTS}/{state.parent.name[:12]}…: an unfinished training, {_duration(age)} old"
        fix = f"rm -r {CHECKPOINTS}/{state.parent.name}  (or run the same command again: the training resumes)"
        yield Finding(name, fix if age > LEFT_OVER_SECONDS else "")
    if not states:
        yield Finding("no unfinished trainings")


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
