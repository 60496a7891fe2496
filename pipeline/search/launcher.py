"""Several experiments at once: started one after the other, watched while they train, ended in order by Ctrl-C."""

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
"""How often an experiment is started if DVC's locks or its stash keep it from running."""
FAILURES = 3
"""So many failed experiments in a row end the whole: what keeps them all from running is not their parameters."""

Result = TypeVar("Result")
Told = Callable[[Mapping[str, float], int], str | None]
"""Takes an epoch's row and the number of epochs; returns why the training is not worth going on with, if so."""


class Why(Enum):
    """Why an experiment has no results; an interrupted one is to be run again."""

    INTERRUPTED = "interrupted"
    GIVEN_UP = "given up"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class Unfinished:
    """How an experiment ended that has no results, and what was said about it."""

    why: Why
    reason: str = ""


class Launcher:
    """Runs experiments for several threads.

    Attributes:
        stop: set when no more is to be started and what runs is to end; `hurry`: at once.
        data_ready: set once an experiment has trained, so that those after it find the data in DVC's cache.
    """

    def __init__(self, root: Path, folder: Path, jobs: int, say: Callable[[str], None]) -> None:
        """Prepare to run experiments.

        Args:
            root: the repository.
            folder: for logs and reports.
            jobs: how many are to run at once; they share the processor's threads.
            say: takes a line for a person.
        """
        self.root, self.folder, self.jobs, self.say = root, folder, jobs, say
        self.stop, self.hurry, self.data_ready = threading.Event(), threading.Event(), threading.Event()
        self.launching = threading.Lock()
        self.running: set[str] = set()
        self.equals: dict[str, threading.Lock] = {}
        self.guard = threading.Lock()  # of the two above
        self.threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None

    def work(self, worker: Callable[[], None]) -> bool:
        """Call `worker` in as many threads as there are jobs; Ctrl-C ends them in order, a second one at once.

        Returns:
            Whether they came to their end; False: they were interrupted.
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
                self.say("stopping: what is running is ended, and goes on where it was when the same command does")
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
        told: Told,
    ) -> Result | Unfinished:
        """Run an experiment to its end, unless it is there already.

        Args:
            values: parameters that differ from params.yaml.
            settings: all its parameters; those of equal trainings wait for one another.
            finished: returns what the experiment's results say; None: it has none.
        """
        with self._alone(settings):
            with self.guard:
                self.running.add(name)
            try:
                return self._start(Experiment(self.root, self.folder, name, values), finished, told)
            finally:
                with self.guard:
                    self.running.discard(name)

    def _start(self, experiment: Experiment, finished: Callable[[], Result | None], told: Told) -> Result | Unfinished:
        if experiment.held():
            self.say(f"{experiment.name}  still running since the command was killed: waiting for it")
        while experiment.held() and not self.stop.is_set():
            time.sleep(POLL_SECONDS)
        for _ in range(STARTS):
            found = finished()
            if found:
                return found
            with self.launching:  # two at once could take one another's entry from the stash that DVC keeps for all
                if self.stop.is_set():
                    return Unfinished(Why.INTERRUPTED)
                experiment.start(threads=self.threads)
                while experiment.running() and not experiment.launched():
                    time.sleep(POLL_SECONDS)
            ended = self._watch(experiment, told)
            found = finished()
            if found or ended or experiment.launched():
                return found or ended or Unfinished(Why.FAILED, experiment.reason())
            self._wait_for_stash(experiment)
        return finished() or Unfinished(Why.FAILED, experiment.reason())

    def _watch(self, experiment: Experiment, told: Told) -> Unfinished | None:
        """Follow a training's report to the end of the experiment; None: DVC ended by itself."""
        state: Path | None = None
        epochs, ended = 0, None
        running = True
        while running:
            running = experiment.running()  # asked before the report is read, so that nothing of it is missed
            for line in experiment.report.new():
                if "state" in line:
                    state, epochs = Path(line["state"]), line["epochs"]
                    self.data_ready.set()
                elif "failed" in line:
                    ended = Unfinished(Why.DIVERGED, line["failed"])
                elif not ended and (reason := told(line, epochs)):
                    ended = Unfinished(Why.GIVEN_UP, reason)
            given_up = ended is not None and ended.why is Why.GIVEN_UP
            if running and (given_up or self.stop.is_set()):
                experiment.interrupt(self.hurry)
                running = False
            elif running:
                time.sleep(POLL_SECONDS)
        if ended and state:
            shutil.rmtree(state, ignore_errors=True)
        return ended or (Unfinished(Why.INTERRUPTED) if self.stop.is_set() else None)

    def _wait_for_stash(self, experiment: Experiment) -> None:
        """Wait until an experiment that DVC did not begin with can be tried again.

        Either a lock was held, or another `dvc exp run --temp`, at its end, found this one's entry in the common
        stash and took it: then that process runs this experiment as well, and its own ends at once.
        """
        taken = experiment.process and experiment.process.returncode == 0
        with self.guard:
            others = self.running - {experiment.name} if taken else set()
        time.sleep(1)
        while others & self.running and not self.stop.is_set():
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _alone(self, settings: Params) -> Iterator[None]:
        """Keep trainings that are the same apart: the second then finds the first one's work in DVC's cache."""
        decisive = json.dumps(settings.effective("model", "augment", "train"))
        with self.guard:
            lock = self.equals.setdefault(decisive, threading.Lock())
        with lock:
            yield


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def only_one(folder: Path, name: str, refusal: PipelineError) -> Iterator[None]:
    """Keep a second one of this name away while the block runs; raise `refusal` if this is the second."""
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
