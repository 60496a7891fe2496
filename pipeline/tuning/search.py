"""The search itself: threads take trials from Optuna, run each as a DVC experiment and watch it while it trains."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import Trial, TrialState

from pipeline import params
from pipeline.errors import ParamsError, PipelineError, TuningError
from pipeline.experiments import Repository
from pipeline.params import Params
from pipeline.tracking.studies import StudyRun
from pipeline.tuning.experiment import POLL_SECONDS, Experiment
from pipeline.tuning.study import Study

STARTS = 5
"""How often an experiment is started if DVC's locks or its stash keep it from running."""
FAILURES = 3
"""So many failed trials in a row end a search: what keeps them all from running is not their parameters."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; RUNNING: it was interrupted and is to be run again."""

    state: TrialState
    value: float | None = None
    reason: str = ""


INTERRUPTED = Outcome(TrialState.RUNNING)


class Listener(Protocol):
    """Is told how a search goes, by several threads."""

    def started(self, name: str, values: Mapping[str, Any]) -> None:
        """Take note that a trial begins."""

    def epoch(self, name: str, epoch: int, epochs: int, accuracy: float) -> None:
        """Take note of an epoch (from 1) and its val/accuracy."""

    def ended(self, name: str, outcome: Outcome, seconds: float, finished: int) -> None:
        """Take note of a trial's end; `finished` counts the trials that are finished in all."""

    def say(self, line: str) -> None:
        """Pass a line on."""


class Search:
    """Runs the trials of a study until enough are finished."""

    def __init__(self, study: Study, run: StudyRun | None, listener: Listener) -> None:
        """Prepare a search; `run` is the study's run in MLflow, None if tracking is off."""
        self.study, self.plan, self.tracking, self.listener = study, study.plan, run, listener
        # Their parameters are known, and their trainings go on where they were.
        self.interrupted = list(study.unfinished())
        self.running: set[str] = set()
        self.failures = 0
        self.changed = threading.Condition()  # guards all of the above
        self.launching, self.reading = threading.Lock(), threading.Lock()
        self.data_ready, self.stop, self.hurry = threading.Event(), threading.Event(), threading.Event()
        if study.finished():
            self.data_ready.set()
        self.equals: dict[str, threading.Lock] = {}
        self.threads = max(1, (os.cpu_count() or 1) // self.plan.jobs) if self.plan.jobs > 1 else None

    def run(self) -> bool:
        """Run trials until enough are finished; Ctrl-C ends it in order, a second one at once.

        Returns:
            Whether the search came to its end; False: it was interrupted.

        Raises:
            TuningError: too many trials failed, or params.yaml was changed while the search ran.
        """
        with futures.ThreadPoolExecutor(self.plan.jobs) as pool:
            workers = [pool.submit(self._work) for _ in range(self.plan.jobs)]
            try:
                futures.wait(workers)
            except KeyboardInterrupt:
                self.stop.set()
                self.listener.say("stopping: trials that are running are ended, and go on when the search does")
                try:
                    futures.wait(workers)
                except KeyboardInterrupt:
                    self.hurry.set()
                    futures.wait(workers)
                for worker in workers:
                    worker.result()
                return False
        for worker in workers:
            worker.result()
        return True

    def _work(self) -> None:
        try:
            while trial := self._next():
                name = self.plan.experiment(trial.number)
                try:
                    self._run(trial, name)
                finally:
                    with self.changed:
                        self.running.discard(name)
                        self.changed.notify_all()
        except BaseException:
            self.stop.set()
            raise

    def _next(self) -> Trial | None:
        """Return the trial to be run next; None: there is nothing more to do."""
        with self.changed:
            while not self.stop.is_set():
                finished = self.study.finished()
                if finished >= self.plan.trials:
                    return None
                # The first trial makes the data, so that those beside it find it in DVC's cache; and a trial that
                # is still running may fail, which makes room for one more.
                if finished + len(self.running) < self.plan.trials and (self.data_ready.is_set() or not self.running):
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
            settings = params.validate(params.changed(base, values), "these parameters")
        except ParamsError as error:
            outcome = Outcome(TrialState.PRUNED, reason=str(error).splitlines()[0])
        else:
            with self._alone(settings):
                outcome = self._experiment(trial, name, values)
        if outcome is not INTERRUPTED:
            self._end(trial, name, outcome, values)
        self.data_ready.set()
        self.listener.ended(name, outcome, time.monotonic() - started, self.study.finished())
        with self.changed:
            self.failures = self.failures + 1 if outcome.state == TrialState.FAIL else 0
            if self.failures >= FAILURES:
                raise TuningError(f"the last {FAILURES} trials failed, {name} with: {outcome.reason}")

    def _experiment(self, trial: Trial, name: str, values: Mapping[str, Any]) -> Outcome:
        experiment = Experiment(self.study.root, self.study.folder, name, values)
        if experiment.held():
            self.listener.say(f"{name}  still running since the search was killed: waiting for it")
        while experiment.held() and not self.stop.is_set():
            time.sleep(POLL_SECONDS)
        for _ in range(STARTS):
            found = self._result(trial, name)
            if found:
                return found
            with self.launching:  # two at once could take one another's entry from the stash that DVC keeps for all
                if self.stop.is_set():
                    return INTERRUPTED
                experiment.start(threads=self.threads)
                while experiment.running() and not experiment.launched():
                    time.sleep(POLL_SECONDS)
            outcome = self._watch(trial, name, experiment)
            found = self._result(trial, name)
            if found or outcome or experiment.launched():
                return found or outcome or Outcome(TrialState.FAIL, reason=experiment.reason())
            self._wait_for_stash(name, experiment)
        return self._result(trial, name) or Outcome(TrialState.FAIL, reason=experiment.reason())

    def _watch(self, trial: Trial, name: str, experiment: Experiment) -> Outcome | None:
        """Follow a training's report to the end of the experiment; None: DVC ended by itself."""
        state: Path | None = None
        epochs, diverged, given_up = 0, None, None
        running = True
        while running:
            running = experiment.running()  # asked before the report is read, so that nothing of it is missed
            for line in experiment.report.new():
                if "state" in line:
                    state, epochs = Path(line["state"]), line["epochs"]
                    self.data_ready.set()
                elif "failed" in line:
                    diverged = Outcome(TrialState.PRUNED, reason=line["failed"])
                else:
                    given_up = given_up or self._epoch(trial, name, line, epochs)
            if running and (given_up or self.stop.is_set()):
                experiment.interrupt(self.hurry)
                running = False
            elif running:
                time.sleep(POLL_SECONDS)
        outcome = diverged or given_up
        if outcome and state:
            shutil.rmtree(state, ignore_errors=True)
        return outcome or (INTERRUPTED if self.stop.is_set() else None)

    def _epoch(self, trial: Trial, name: str, row: Mapping[str, float], epochs: int) -> Outcome | None:
        """Tell Optuna of an epoch; return the end of a trial that is not worth going on with."""
        epoch, accuracy = int(row["epoch"]), row["val/accuracy"]
        self.listener.epoch(name, epoch, epochs, accuracy)
        if self.tracking and epoch == 1:
            self.tracking.adopt(name)
        with self.changed:
            self._report(trial, row, epochs)
            if epoch == epochs or not trial.should_prune():
                return None
        return Outcome(
            TrialState.PRUNED, reason=f"{accuracy:.2%} in epoch {epoch} of {epochs}, below the median of the others"
        )

    def _report(self, trial: Trial, row: Mapping[str, float], epochs: int) -> None:
        """Note an epoch, in thousandths of the training: trainings of any length are compared at the same share."""
        step = round(1000 * row["epoch"] / epochs)
        known = self.study.optuna.get_trials(deepcopy=False)[trial.number].intermediate_values
        if step not in known:
            trial.report(row["val/accuracy"], step)

    def _result(self, trial: Trial, name: str) -> Outcome | None:
        """Return the outcome that the files of a finished experiment tell; None: there is no such experiment."""
        with self.reading, Repository(self.study.root) as repository:
            try:
                revision = repository.resolve(name)
                record = repository.results(revision)
                history = repository.history(revision, record)
            except PipelineError:
                return None
        with self.changed:
            for row in history:  # a training that DVC restored from its cache has reported nothing
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
            self.tracking.adopt(name)
            if is_best and outcome.value is not None:
                self.tracking.best(name, outcome.value, values, finished)

    def _wait_for_stash(self, name: str, experiment: Experiment) -> None:
        """Wait until an experiment that DVC did not begin with can be tried again.

        Either a lock was held, or another `dvc exp run --temp`, at its end, found this one's entry in the common
        stash and took it: then that process runs this experiment as well, and its own ends at once.
        """
        taken = experiment.process and experiment.process.returncode == 0
        others = self.running - {name} if taken else set()
        time.sleep(1)
        while others & self.running and not self.stop.is_set():
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _alone(self, settings: Params) -> Iterator[None]:
        """Keep trainings that are the same apart: the second then finds the first one's work in DVC's cache."""
        decisive = json.dumps(settings.effective("model", "augment", "train"))
        with self.changed:
            lock = self.equals.setdefault(decisive, threading.Lock())
        with lock:
            yield
