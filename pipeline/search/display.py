"""Progress of running experiments: a bar for each in a terminal, a line for each in a log."""

import threading
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


def rounded(value: Any) -> str:
    """Format a parameter's value, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class ExperimentsDisplay:
    """Progress display of experiments, with the estimated remaining time; a thread-safe context manager."""

    def __init__(self, name: str, total: int, finished: int, jobs: int) -> None:
        self.total, self.jobs = total, jobs
        self.console = Console(soft_wrap=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.overall = self.bars.add_task(name, total=total, completed=finished, note=f"{finished}/{total} finished")
        self.tasks: dict[str, TaskID] = {}
        self.seconds: list[float] = []
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False)

    def started(self, name: str, values: Mapping[str, Any]) -> None:
        """Print the parameters of an experiment that starts."""
        chosen = "  ".join(f"{key}={rounded(value)}" for key, value in values.items())
        with self.lock:
            self.say(f"{name}  started   {chosen}")
            self.tasks[name] = self.bars.add_task(name, total=None, note="before training")

    def epoch(self, name: str, epoch: int, epochs: int, accuracy: float) -> None:
        """Advance the bar of an experiment."""
        note = f"epoch {epoch}/{epochs}  val accuracy {accuracy:.2%}{'  evaluating' if epoch == epochs else ''}"
        self.bars.update(self.tasks[name], total=epochs, completed=epoch, note=note)

    def interrupted(self, name: str) -> None:
        """Remove the bar of an interrupted experiment."""
        with self.lock:
            self.bars.remove_task(self.tasks.pop(name))

    def finish(self, name: str, message: str, seconds: float, finished: int) -> None:
        """Print the outcome of an experiment, the number of finished ones and the estimated remaining time."""
        with self.lock:
            self.bars.remove_task(self.tasks.pop(name))
            self.seconds.append(seconds)
            left = sum(self.seconds) / len(self.seconds) * max(0, self.total - finished) / self.jobs
            state = f"{finished}/{self.total} finished"
            if finished < self.total:
                state += f", about {left // 60:.0f}:{left % 60:02.0f} left"
            self.say(f"{name}  {message}  ({state})")
            self.bars.update(self.overall, completed=finished, note=state)
