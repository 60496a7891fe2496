"""Runs those experiments of a study that are missing, and remembers which trainings diverged."""

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
CHANGED = "params.yaml or the code was changed while the study ran; the same command plans it anew"


class Ledger:
    """What a study remembers besides its experiments: trainings that diverged, and its run in MLflow."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder, self.file = root / FOLDER / name, root / FOLDER / f"{name}.json"
        known = files.read_json(self.file) if self.file.exists() else {}
        self.diverged: dict[str, str] = known.get("diverged", {})
        self.mlflow_run: str | None = known.get("mlflow_run")

    def save(self) -> None:
        """Write the file."""
        files.write_json(self.file, {"mlflow_run": self.mlflow_run, "diverged": self.diverged})


class Runner:
    """Runs the missing experiments of a plan, and takes note of those that diverge."""

    def __init__(self, root: Path, planned: Plan, jobs: int, ledger: Ledger, tracking: StudyRun | None) -> None:
        """Look what is missing; nothing runs yet."""
        self.root, self.plan, self.ledger, self.tracking = root, planned, ledger, tracking
        self.waiting = missing(root, planned, ledger)
        total = len(planned.experiments)
        there = total - len(self.waiting)
        self.display = ExperimentsDisplay(planned.name, total, there, jobs)
        self.launcher = Launcher(root, ledger.folder, jobs, self.display.say)
        if there:
            self.launcher.data_ready.set()
        self.running = self.failures = 0
        self.failed: dict[str, str] = {}
        self.changed = threading.Condition()  # guards the four above and the ledger
        self.reading = threading.Lock()

    @property
    def finished(self) -> int:
        """How many experiments have results or have diverged."""
        return len(self.plan.experiments) - len(self.waiting) - self.running - len(self.failed)

    def run(self) -> bool:
        """Run what is missing; Ctrl-C ends it in order.

        Returns:
            Whether it came to its end; False: it was interrupted.

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
        """Return the experiment to be run next; None: there is nothing more to do."""
        with self.changed:
            while self.waiting and not self.launcher.stop.is_set():
                # The first makes the data, so that those beside it find it in DVC's cache.
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
            told=lambda row, epochs: self._epoch(planned, row, epochs),
        )
        with self.changed:
            self.running -= 1
            said = self._note(planned, found)
        if said is None:
            self.display.interrupted(planned.name)
            return
        if self.tracking:
            self.tracking.adopt(planned.name)
        self.launcher.data_ready.set()
        self.display.finish(planned.name, said, time.monotonic() - started, self.finished)
        if self.failures >= FAILURES:
            raise StudyError(
                f"the last {FAILURES} experiments failed, {planned.name} with: {self.failed[planned.name]}"
            )

    def _note(self, planned: Planned, found: Found | Unfinished) -> str | None:
        """Take note of how an experiment ended and say so; None: it is to go on another time."""
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
        """Raise StudyError if the experiment would not be what its name says."""
        tree = loading.changed(loading.read(self.root / "params.yaml"), planned.values)
        now = loading.validate(tree, "params.yaml")
        if plan.decisive(now) != plan.decisive(planned.settings) or plan.code_digest(self.root, now) != planned.code:
            raise StudyError(CHANGED)


def missing(root: Path, planned: Plan, ledger: Ledger) -> list[Planned]:
    """Return the experiments that neither exist nor have diverged."""
    with Repository(root) as repository:
        known = existing.by_name(repository)
        return [
            one
            for one in planned.experiments
            if one.name not in ledger.diverged and existing.find(repository, one, known) is None
        ]
