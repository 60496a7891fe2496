"""What the benchmarks share: fair timing of several sides, a description of the machine, the result as JSON."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from pipeline.errors import PipelineError
from pipeline.hardware import device
from pipeline.models.common import numerics


class BenchmarkError(PipelineError):
    """A benchmark cannot run: something it compares with is missing, or does not do what it is to be timed at."""


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one side, in seconds, in the order in which they were taken."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    place: torch.device,
    *,
    on_call: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time several functions turn by turn, so that what else the machine does hits all of them alike.

    Args:
        sides: functions by name; each is called once before anything is timed.
        repeats: rounds; every round calls each side once, in turning order.
        place: waited for before each look at the clock.
        on_call: called after each call of a side, while no clock runs; (repeats + 1) * len(sides) times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(-1, repeats):
        names = list(sides)
        names = names[round_ % len(names) :] + names[: round_ % len(names)]
        for name in names:
            device.synchronize(place)
            started = time.perf_counter()
            sides[name]()
            device.synchronize(place)
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - started)
            on_call()
    return {name: Timing(values) for name, values in seconds.items()}


def ratio(numerator: Timing, denominator: Timing) -> float:
    """Return the median of the rounds' own ratios: both sides of a round saw the same machine."""
    pairs = zip(numerator.seconds, denominator.seconds, strict=True)
    return statistics.median(one / other for one, other in pairs)


@contextmanager
def bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar in a terminal, one line in a log; yields the function that advances it by one.

    It draws only when it is advanced: no thread of it takes time from what is measured.
    """
    console = Console()
    if not console.is_terminal:
        print(description, flush=True)
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        progress.refresh()
        yield lambda: progress.update(task, advance=1, refresh=True)


def choose(wanted: str) -> torch.device:
    """Return the device for `--device`.

    Raises:
        BenchmarkError: the machine has no CUDA device.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("--device: found cuda, but this machine has no CUDA device; expected auto or cpu")
    return device.choose(wanted)


def machine(place: torch.device) -> dict[str, Any]:
    """Return what numbers measured here should be read with."""
    return {
        **device.describe(place),
        "precision": numerics.choose_precision("auto", place),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(terse=True),
        "commit": _commit(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *map(_told, sys.argv[1:])]),
    }


def report(results: Mapping[str, Any], place: torch.device, path: Path | None) -> None:
    """Print the machine; write it and the results to a JSON file if there is a path."""
    about = machine(place)
    print(
        f"\n{about['device_name']}, {about['cores']} cores, {about['threads']} threads, {about['precision']}; "
        f"Python {about['python']}, torch {about['torch']}; commit {about['commit']}"
    )
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": about, **results}, indent=1) + "\n")
        print(f"written: {path}")


def run(folder: Path, command: Sequence[str], *, environment: Mapping[str, str] | None = None, code: int = 0) -> str:
    """Run a command in a folder and return what it printed.

    Raises:
        BenchmarkError: it ended with another exit code than expected.
    """
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != code:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise BenchmarkError(f"{' '.join(command)[:200]} in {folder} ended with exit code {done.returncode}: {last}")
    return done.stdout


def _told(argument: str) -> str:
    """Return a word of a command as others can use it: where this machine keeps a file is nobody's business."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _commit() -> str:
    """Return the short hash of the code measured, with a mark if files differ from it; "unknown" outside git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
