"""Show the progress of a training: a live bar in a terminal, plain lines in a log."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 20


@dataclass(frozen=True)
class Step:
    """The state within an epoch, for a progress display; `done` is the share of the whole training, 0..1."""

    epoch: int
    step: int
    steps: int
    done: float
    lr: float
    loss: float
    accuracy: float
    images_per_second: float


class TrainingDisplay:
    """Shows steps and epochs as they come; used as a context manager around a training."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.console = Console(soft_wrap=True, highlight=False)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]:>3}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn(
                "loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.3f}  "
                "{task.fields[rate]:,.0f} images/s  lr {task.fields[lr]:.4f}"
            ),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(
            "train", total=None, epoch=1, epochs=epochs, loss=0.0, accuracy=0.0, rate=0.0, lr=0.0
        )
        self.started = self.last_line = time.monotonic()
        self.resumed = False
        self.done = self.done_at_start = self.rate = 0.0

    def __enter__(self) -> "TrainingDisplay":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, step: Step) -> None:
        """Show how far the epoch is; in a log only every 20 seconds."""
        if self.resumed and not self.rate:  # what was done before tells nothing of the time that the rest takes
            self.started, self.done_at_start = time.monotonic(), step.done
        self.done, self.rate = step.done, step.images_per_second
        self.bar.update(
            self.task,
            total=1.0,
            completed=step.done,
            epoch=step.epoch,
            loss=step.loss,
            accuracy=step.accuracy,
            rate=step.images_per_second,
            lr=step.lr,
        )
        if not self.console.is_terminal and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            left = self._left()
            print(
                f"epoch {step.epoch:3}/{self.epochs}  step {step.step}/{step.steps}  loss {step.loss:.3f}  "
                f"accuracy {step.accuracy:.3f}  {self.rate:,.0f} images/s  lr {step.lr:.4f}  {left}",
                flush=True,
            )
            self.last_line = time.monotonic()

    def epoch(self, row: Mapping[str, float]) -> None:
        """Print one line for a finished epoch."""
        self.resumed = not self.rate
        rate = "restored  " if self.resumed else f"{self.rate:,.0f} images/s  "
        self.console.print(
            f"epoch {row['epoch']:3.0f}/{self.epochs}  train loss {row['train/loss']:.3f} "
            f"accuracy {row['train/accuracy']:.3f}  val loss {row['val/loss']:.3f} "
            f"accuracy {row['val/accuracy']:.3f}  {rate}lr {row['lr']:.4f}  {self._left()}"
        )
        self.last_line = time.monotonic()

    def _left(self) -> str:
        """Estimate the time left from what this process has done itself."""
        passed = self.done - self.done_at_start
        if not passed:
            return ""
        seconds = (time.monotonic() - self.started) / passed * (1 - self.done)
        return f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"
