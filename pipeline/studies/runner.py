"""Runs the missing experiments of a study and records which trainings diverged."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pipeline import files
from pipeline.config import loading
from pipeline.errors import StudyError
from pipeline.experiments.repository import Repository
from pipeline.search.display import ExperimentsDisplay
from pipeline.search.launcher import FAILURES, Launcher, Unfinished, Why
from pipeline.studies import existing, plan
from pipeline.studies.existing import Found
from pipeline.studies.plan import Plan, Planned
from pipeline.tracking.studies import StudyRun

FOLDER = ".studies"
CHANGED = "params.yaml or the code was changed while the study ran; run the same command again"


class Ledger:
    """State of a study besides its experiments: trainings that diverged, and its run in MLflow."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder, self.file = root / FOLDER / name, root / FOLDER / f"{name}.json"
        known = files.read_json(self.file) if self.file.exists() else {}
        self.diverged: dict[str, str] = known.get("diverged", {})
        self.mlflow_run: str | None = known.get("mlflow_run")

    def save(self) -> None:
        """Write the file."""
        files.write_json(self.file, {"mlflow_run": self.mlflow_run, "diverged": self.diverged})


class Runner:
    """Runs the missing experiments of a plan and records those that diverge."""

    def __init__(self, root: Path, planned: Plan, jobs: int, ledger: Ledger, tracking: StudyRun | None) -> None:
        """Find the missing experiments; nothing runs yet."""
        self.root, self.plan, self.ledger, self.tracking = root, planned, ledger, tracking
        self.waiting = missing(root, planned, ledger)
        total = len(planned.experiments)
        finished = total - len(self.waiting)
        self.display = ExperimentsDisplay(planned.name, total, finished, jobs)
        self.launcher = Launcher(root, ledger.folder, jobs, self.display.say)
        if finished:
            self.launcher.data_ready.set()
        self.running = self.failures = 0
        self.failed: dict[str, str] = {}
        self.changed = threading.Condition()  # guards the four above and the ledger
        self.reading = threading.Lock()

    @property
    def finished(self) -> int:
        """Number of experiments that have results or have diverged."""
        return len(self.plan.experiments) - len(self.waiting) - self.running - len(self.failed)

    def run(self) -> bool:
        """Run the missing experiments; Ctrl-C stops them in order.

        Returns:
            Whether all have run; False: it was interrupted.

        Raises:
            StudyError: experiments failed, or params.yaml or the code was changed meanwhile.
        """
        with self.display:
            total = len(self.plan.experiments)
            self.display.say(f"{self.plan.name}: {total} experiments, {len(self.waiting)} of them to be run")
            complete = self.launcher.work(self._work)
        if complete and self.failed:
            name, reason = next(iter(self.failed.items()))
            raise StudyError(f"{len(self.failed)} of {total} experiments failed, {name} with: {reason}")
        return complete

    def _work(self) -> None:
        while planned := self._next():
            try:
                self._run(planned)
            finally:
                with self.changed:
                    self.changed.notify_all()

    def _next(self) -> Planned | None:
        """Return the next experiment to run; None: there is none."""
        with self.changed:
            while self.waiting and not self.launcher.stop.is_set():
                # The first makes the data, which the others then find in DVC's cache.
                if self.launcher.data_ready.is_set() or not self.running:
                    self.running += 1
                    return self.waiting.pop(0)
                self.changed.wait(1)
        return None

    def _run(self, planned: Planned) -> None:
        self._check(planned)
        started = time.monotonic()
        self.display.started(planned.name, {"variant": planned.variant, "seed": planned.seed})
        found = self.launcher.run(
            planned.name,
            planned.values,
            planned.settings,
            finished=lambda: self._found(planned),
            on_epoch=lambda row, epochs: self._epoch(planned, row, epochs),
        )
        with self.changed:
            self.running -= 1
            message = self._record(planned, found)
        if message is None:
            self.display.interrupted(planned.name)
            return
        if self.tracking and isinstance(found, Found):
            self.tracking.complete(planned.name)
        self.launcher.data_ready.set()
        self.display.finish(planned.name, message, time.monotonic() - started, self.finished)
        if self.failures >= FAILURES:
            raise StudyError(
                f"the last {FAILURES} experiments failed, {planned.name} with: {self.failed[planned.name]}"
            )

    def _record(self, planned: Planned, found: Found | Unfinished) -> str | None:
        """Record how an experiment ended and return a message; None: it was interrupted and waits again."""
        if isinstance(found, Found):
            self.failures = 0
            return f"complete  test accuracy {found.record.metrics['test/accuracy']:.2%}"
        if found.why is Why.DIVERGED:
            self.failures = 0
            self.ledger.diverged[planned.name] = found.reason
            self.ledger.save()
            return f"diverged  {found.reason}"
        if found.why is Why.FAILED:
            self.failures += 1
            self.failed[planned.name] = found.reason
            return f"failed    {found.reason}"
        self.waiting.insert(0, planned)
        return None

    def _found(self, planned: Planned) -> Found | None:
        with self.reading, Repository(self.root) as repository:
            return existing.find(repository, planned, existing.by_name(repository))

    def _epoch(self, planned: Planned, row: Mapping[str, float], epochs: int) -> None:
        epoch = int(row["epoch"])
        self.display.epoch(planned.name, epoch, epochs, row["val/accuracy"])
        if self.tracking and epoch == 1:
            self.tracking.adopt(planned.name)

    def _check(self, planned: Planned) -> None:
        """Raise StudyError if params.yaml or the code is no longer that of the experiment's name."""
        tree = loading.changed(loading.read(self.root / "params.yaml"), planned.values)
        now = loading.validate(tree, "params.yaml")
        if plan.decisive(now) != plan.decisive(planned.settings) or plan.code_digest(self.root, now) != planned.code:
            raise StudyError(CHANGED)


def missing(root: Path, planned: Plan, ledger: Ledger) -> list[Planned]:
    """Return the experiments that have neither results nor diverged."""
    with Repository(root) as repository:
        known = existing.by_name(repository)
        return [
            one
            for one in planned.experiments
            if one.name not in ledger.diverged and existing.find(repository, one, known) is None
        ]
