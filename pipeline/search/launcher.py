"""Run experiments concurrently, monitor their trainings, and end them cleanly on Ctrl-C."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import filelock

from pipeline.config.schema import Params
from pipeline.errors import PipelineError
from pipeline.search.experiment import POLL_SECONDS, Experiment

STARTS = 5
"""Number of attempts to start an experiment that DVC's locks or stash prevent from running."""
FAILURES = 3
"""Number of consecutive failures that end a search or study: then parameters are not the cause."""

Result = TypeVar("Result")
OnEpoch = Callable[[Mapping[str, float], int], str | None]
"""Takes an epoch's metrics and the number of epochs; returns the reason to stop the training, if any."""


class Why(Enum):
    """Why an experiment has no results; interrupted ones are run again."""

    INTERRUPTED = "interrupted"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class Unfinished:
    """Why an experiment has no results: the kind of reason, and details."""

    why: Why
    reason: str = ""


class Launcher:
    """Runs experiments from several threads.

    Attributes:
        stop: set to start no more experiments and end the running ones; `hurry`: to kill them.
        data_ready: set when an experiment has started to train, so that the data are in DVC's cache.
    """

    def __init__(self, root: Path, folder: Path, jobs: int, say: Callable[[str], None]) -> None:
        """Prepare to run experiments.

        Args:
            root: the repository.
            folder: for logs and reports.
            jobs: number of concurrent experiments, which share the CPU threads.
            say: prints a message to the user.
        """
        self.root, self.folder, self.jobs, self.say = root, folder, jobs, say
        self.stop, self.hurry, self.data_ready = threading.Event(), threading.Event(), threading.Event()
        self.launching = threading.Lock()
        self.running: set[str] = set()
        self.equals: dict[str, threading.Lock] = {}
        self.guard = threading.Lock()  # guards the two attributes above
        self.threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None

    def work(self, worker: Callable[[], None]) -> bool:
        """Call `worker` in `jobs` threads; Ctrl-C interrupts the experiments, a second one kills them.

        Returns:
            Whether the workers finished; False if they were interrupted.
        """

        def guarded() -> None:
            try:
                worker()
            except BaseException:
                self.stop.set()
                raise

        with futures.ThreadPoolExecutor(self.jobs) as pool:
            workers = [pool.submit(guarded) for _ in range(self.jobs)]
            try:
                futures.wait(workers)
            except KeyboardInterrupt:
                self.stop.set()
                self.say("stopping the running experiments; the same command resumes them")
                try:
                    futures.wait(workers)
                except KeyboardInterrupt:
                    self.hurry.set()
                    futures.wait(workers)
                for done in workers:
                    done.result()
                return False
        for done in workers:
            done.result()
        return True

    def run(
        self,
        name: str,
        values: Mapping[str, Any],
        settings: Params,
        *,
        finished: Callable[[], Result | None],
        on_epoch: OnEpoch,
    ) -> Result | Unfinished:
        """Run an experiment unless it has finished before.

        Args:
            values: parameters that differ from params.yaml.
            settings: all its parameters; experiments with equal trainings run one after the other.
            finished: returns the outcome from the experiment's results; None if it has none.
            on_epoch: called with the metrics of each epoch and the number of epochs.
        """
        with self._alone(settings):
            with self.guard:
                self.running.add(name)
            try:
                return self._start(Experiment(self.root, self.folder, name, values), finished, on_epoch)
            finally:
                with self.guard:
                    self.running.discard(name)

    def _start(
        self, experiment: Experiment, finished: Callable[[], Result | None], on_epoch: OnEpoch
    ) -> Result | Unfinished:
        if experiment.held():
            self.say(f"{experiment.name}  still running from an earlier start: waiting for it")
        while experiment.held() and not self.stop.is_set():
            time.sleep(POLL_SECONDS)
        for _ in range(STARTS):
            found = finished()
            if found:
                return found
            with self.launching:  # concurrent starts could take each other's entry from DVC's stash
                if self.stop.is_set():
                    return Unfinished(Why.INTERRUPTED)
                experiment.start(threads=self.threads)
                while experiment.running() and not experiment.launched():
                    time.sleep(POLL_SECONDS)
            ended = self._watch(experiment, on_epoch)
            found = finished()
            if found or ended or experiment.launched():
                return found or ended or Unfinished(Why.FAILED, experiment.reason())
            self._wait_for_stash(experiment)
        return finished() or Unfinished(Why.FAILED, experiment.reason())

    def _watch(self, experiment: Experiment, on_epoch: OnEpoch) -> Unfinished | None:
        """Follow a training's report to the end of the experiment; return None if DVC ended by itself."""
        state: Path | None = None
        epochs, ended = 0, None
        running = True
        while running:
            running = experiment.running()  # checked before reading, so that no line of the report is missed
            for line in experiment.report.new():
                if "state" in line:
                    state, epochs = Path(line["state"]), line["epochs"]
                    self.data_ready.set()
                elif "failed" in line:
                    ended = Unfinished(Why.DIVERGED, line["failed"])
                elif not ended and (reason := on_epoch(line, epochs)):
                    ended = Unfinished(Why.PRUNED, reason)
            pruned = ended is not None and ended.why is Why.PRUNED
            if running and (pruned or self.stop.is_set()):
                experiment.interrupt(self.hurry)
                running = False
            elif running:
                time.sleep(POLL_SECONDS)
        if ended and state:
            shutil.rmtree(state, ignore_errors=True)
        return ended or (Unfinished(Why.INTERRUPTED) if self.stop.is_set() else None)

    def _wait_for_stash(self, experiment: Experiment) -> None:
        """Wait until an experiment that DVC did not start can be tried again.

        Either a lock was held, or another `dvc exp run --temp` took the entry of this one from the common stash when
        it finished: then that process runs this experiment, too, and this one's process ends immediately.
        """
        taken = experiment.process and experiment.process.returncode == 0
        with self.guard:
            others = self.running - {experiment.name} if taken else set()
        time.sleep(1)
        while others & self.running and not self.stop.is_set():
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _alone(self, settings: Params) -> Iterator[None]:
        """Run equal trainings one after the other: the second is then restored from DVC's cache."""
        decisive = json.dumps(settings.effective("model", "augment", "optimizer", "train"))
        with self.guard:
            lock = self.equals.setdefault(decisive, threading.Lock())
        with lock:
            yield


def end_in_order() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, and let experiments be interrupted.

    What a script starts in its background ignores Ctrl-C, and so would all that it starts, were it not for a handler.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def only_one(folder: Path, name: str, refusal: PipelineError) -> Iterator[None]:
    """Lock a name while the block runs; raise `refusal` if another process has locked it."""
    folder.mkdir(exist_ok=True)
    lock = filelock.FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()
