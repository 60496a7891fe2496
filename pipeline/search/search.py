"""The search: threads take trials from Optuna, run each as a DVC experiment and prune it while it trains."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.trial import Trial, TrialState

from pipeline.config import loading
from pipeline.config.schema import Params
from pipeline.errors import ParamsError, PipelineError, TuningError
from pipeline.experiments.repository import Repository
from pipeline.search.launcher import FAILURES, Launcher, Unfinished, Why
from pipeline.search.study import Study
from pipeline.tracking.studies import StudyRun

STATES = {
    Why.INTERRUPTED: TrialState.RUNNING,
    Why.PRUNED: TrialState.PRUNED,
    Why.DIVERGED: TrialState.PRUNED,
    Why.FAILED: TrialState.FAIL,
}
"""Optuna's state of a trial whose experiment has no results; running ones are resumed."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial; RUNNING means that it was interrupted and is run again."""

    state: TrialState
    value: float | None = None
    reason: str = ""


class Listener(Protocol):
    """Receives the progress of a search, from several threads."""

    def started(self, name: str, values: Mapping[str, Any]) -> None:
        """Handle the start of a trial."""

    def epoch(self, name: str, epoch: int, epochs: int, accuracy: float) -> None:
        """Handle an epoch (from 1) and its val/accuracy."""

    def ended(self, name: str, outcome: Outcome, seconds: float, finished: int) -> None:
        """Handle the end of a trial; `finished` is the total number of finished trials."""

    def say(self, line: str) -> None:
        """Print a message to the user."""


class Search:
    """Runs the trials of a study until enough are finished."""

    def __init__(self, study: Study, run: StudyRun | None, listener: Listener) -> None:
        """Prepare a search; `run` is the study's run in MLflow, None if tracking is off."""
        self.study, self.plan, self.tracking, self.listener = study, study.plan, run, listener
        # Their parameters are known, and their trainings resume.
        self.interrupted = list(study.unfinished())
        self.running: set[str] = set()
        self.failures = 0
        self.changed = threading.Condition()  # guards all of the above
        self.reading = threading.Lock()
        self.launcher = Launcher(study.root, study.folder, self.plan.jobs, listener.say)
        if study.finished():
            self.launcher.data_ready.set()

    def run(self) -> bool:
        """Run trials until enough are finished; Ctrl-C interrupts them, a second one kills them.

        Returns:
            Whether the search finished; False if it was interrupted.

        Raises:
            TuningError: too many trials failed, or params.yaml was changed while the search ran.
        """
        return self.launcher.work(self._work)

    def _work(self) -> None:
        while trial := self._next():
            name = self.plan.experiment(trial.number)
            try:
                self._run(trial, name)
            finally:
                with self.changed:
                    self.running.discard(name)
                    self.changed.notify_all()

    def _next(self) -> Trial | None:
        """Return the next trial; None if there is nothing left to do."""
        with self.changed:
            while not self.launcher.stop.is_set():
                finished = self.study.finished()
                if finished >= self.plan.trials:
                    return None
                # The first trial prepares the data, so that the others find them in DVC's cache. A running trial
                # may fail, so wait before giving up.
                ready = self.launcher.data_ready.is_set() or not self.running
                if finished + len(self.running) < self.plan.trials and ready:
                    trial = self.interrupted.pop(0) if self.interrupted else self.study.ask()
                    if trial:
                        self.running.add(self.plan.experiment(trial.number))
                        return trial
                    if not self.running:
                        return None
                self.changed.wait(1)
        return None

    def _run(self, trial: Trial, name: str) -> None:
        started = time.monotonic()
        values = self.study.space.values(trial.params)
        self.listener.started(name, values)
        base = self.study.base()
        try:
            settings = loading.validate(loading.changed(base, values), "these parameters")
        except ParamsError as error:
            outcome = Outcome(TrialState.PRUNED, reason=str(error).splitlines()[0])
        else:
            outcome = self._experiment(trial, name, values, settings)
        if outcome.state != TrialState.RUNNING:
            self._end(trial, name, outcome, values)
        self.launcher.data_ready.set()
        self.listener.ended(name, outcome, time.monotonic() - started, self.study.finished())
        with self.changed:
            self.failures = self.failures + 1 if outcome.state == TrialState.FAIL else 0
            if self.failures >= FAILURES:
                raise TuningError(f"the last {FAILURES} trials failed, {name} with: {outcome.reason}")

    def _experiment(self, trial: Trial, name: str, values: Mapping[str, Any], settings: Params) -> Outcome:
        end = self.launcher.run(
            name,
            values,
            settings,
            finished=lambda: self._result(trial, name),
            on_epoch=lambda row, epochs: self._epoch(trial, name, row, epochs),
        )
        return Outcome(STATES[end.why], reason=end.reason) if isinstance(end, Unfinished) else end

    def _epoch(self, trial: Trial, name: str, row: Mapping[str, float], epochs: int) -> str | None:
        """Report an epoch to Optuna; return the reason for pruning, if any."""
        epoch, accuracy = int(row["epoch"]), row["val/accuracy"]
        self.listener.epoch(name, epoch, epochs, accuracy)
        if self.tracking and epoch == 1:
            self.tracking.adopt(name)
        with self.changed:
            self._report(trial, row, epochs)
            if epoch == epochs or not trial.should_prune():
                return None
        return f"{accuracy:.2%} in epoch {epoch} of {epochs}, below the median of the others"

    def _report(self, trial: Trial, row: Mapping[str, float], epochs: int) -> None:
        """Report an epoch to Optuna, in thousandths of the training, to compare trainings of any length."""
        step = round(1000 * row["epoch"] / epochs)
        known = self.study.optuna.get_trials(deepcopy=False)[trial.number].intermediate_values
        if step not in known:
            trial.report(row["val/accuracy"], step)

    def _result(self, trial: Trial, name: str) -> Outcome | None:
        """Return the outcome from the files of a finished experiment; None if there is no such experiment."""
        with self.reading, Repository(self.study.root) as repository:
            try:
                revision = repository.resolve(name)
                record = repository.results(revision)
                history = repository.history(revision, record)
            except PipelineError:
                return None
        with self.changed:
            for row in history:  # a training restored from DVC's cache has not reported
                self._report(trial, row, len(history))
        return Outcome(TrialState.COMPLETE, float(record.metrics["val/accuracy"]))

    def _end(self, trial: Trial, name: str, outcome: Outcome, values: Mapping[str, Any]) -> None:
        with self.changed:
            trial.set_user_attr("experiment", name)
            if outcome.reason:
                trial.set_user_attr("reason", outcome.reason)
            self.study.optuna.tell(trial, outcome.value, state=outcome.state)
            finished = self.study.finished()
            is_best = [best.number for best in self.study.best()[:1]] == [trial.number]
        if self.tracking and outcome.state == TrialState.PRUNED:
            self.tracking.prune(name, outcome.reason)
        elif self.tracking:
            self.tracking.complete(name)
            if is_best and outcome.value is not None:
                self.tracking.best(name, outcome.value, values, finished)
