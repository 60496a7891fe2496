"""What a person sees while a search runs: a bar for each trial in a terminal, a line for each in a log."""

import threading
from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pipeline.tuning.search import INTERRUPTED, Outcome
from pipeline.tuning.study import Study

WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "given up", TrialState.FAIL: "failed"}


def rounded(value: Any) -> str:
    """Return a parameter's value for people to read, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class TuningDisplay:
    """Shows trials as they come: the listener of a search, and a context manager around it."""

    def __init__(self, study: Study) -> None:
        self.plan = study.plan
        self.console = Console(soft_wrap=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        finished = study.finished()
        self.overall = self.bars.add_task(self.plan.name, total=self.plan.trials, completed=finished, note="trials")
        self.tasks: dict[str, TaskID] = {}
        self.seconds: list[float] = []
        self.best = max((trial.value or 0.0 for trial in study.best()), default=0.0)
        self.lock = threading.Lock()  # trials tell of themselves from threads of their own
        if finished:
            self.say(f"going on with {self.plan.name}: {finished} of {self.plan.trials} trials are finished")

    def __enter__(self) -> "TuningDisplay":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False)

    def started(self, name: str, values: Mapping[str, Any]) -> None:
        """Print the parameters of a trial that begins."""
        chosen = "  ".join(f"{key}={rounded(value)}" for key, value in values.items())
        with self.lock:
            self.say(f"{name}  started   {chosen}")
            self.tasks[name] = self.bars.add_task(name, total=None, note="before training")

    def epoch(self, name: str, epoch: int, epochs: int, accuracy: float) -> None:
        """Move a trial's bar."""
        note = f"epoch {epoch}/{epochs}  val accuracy {accuracy:.2%}{'  evaluating' if epoch == epochs else ''}"
        self.bars.update(self.tasks[name], total=epochs, completed=epoch, note=note)

    def ended(self, name: str, outcome: Outcome, seconds: float, finished: int) -> None:
        """Print how a trial ended, how many are finished, and how long the rest may take."""
        with self.lock:
            self.bars.remove_task(self.tasks.pop(name))
            if outcome is INTERRUPTED:
                return
            said = outcome.reason
            if outcome.value is not None:
                said = f"val accuracy {outcome.value:.2%}{', the best so far' if outcome.value > self.best else ''}"
                self.best = max(self.best, outcome.value)
            self.seconds.append(seconds)
            left = sum(self.seconds) / len(self.seconds) * max(0, self.plan.trials - finished) / self.plan.jobs
            state = f"{finished}/{self.plan.trials} finished"
            if finished < self.plan.trials:
                state += f", about {left // 60:.0f}:{left % 60:02.0f} left"
            self.say(f"{name}  {WORDS[outcome.state]:8}  {said}  ({state})")
            self.bars.update(self.overall, completed=finished, note=state)
