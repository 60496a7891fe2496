"""Command line, error reporting, progress and timing of stages."""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from pipeline import files
from pipeline.errors import PipelineError

PathOption = Annotated[Path, typer.Option()]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run(main: Callable[..., None]) -> None:
    """Call a stage's main function with paths from the command line, and end the process.

    It ends without taking PyTorch or MLflow apart, which takes one to two seconds and has no effect: all files are
    written and closed, and the operating system frees the rest. Ctrl-C and SIGTERM end it with a line, code 130.
    """

    @functools.wraps(main)
    def to_the_end(*args: Any, **kwargs: Any) -> None:
        code = 0
        try:
            main(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted: the same command goes on, a training after its last completed epoch", file=sys.stderr)
            code = INTERRUPTED
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command(to_the_end)


def command(main: Callable[..., None]) -> None:
    """Call a main function with options from the command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    guard(app)


def guard(app: Callable[[], Any]) -> None:
    """Call a command; print a user's mistakes to stderr, one line each, and exit with code 1."""
    try:
        app()
    except PipelineError as error:
        message = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = " ".join(f"{where}{error.strerror or error}".split())
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("pipeline", "stages"):
            raise
        message = f"{error.name} is not installed; pip install '.[train]' in the repository installs all that it uses"
    except RuntimeError as error:
        message = _of_pytorch(error)
        if not message:
            raise
    else:
        return
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


def _of_pytorch(error: RuntimeError) -> str:
    """Return what a user can do about an error of PyTorch; empty for all that is a fault of the program."""
    said = str(error)
    if type(error).__name__ == "OutOfMemoryError":  # by name, as importing PyTorch takes seconds
        needed, there, *_ = said.split(". ")[1:]
        return f"out of GPU memory: {needed}. {there}; lower train.batch_size, or evaluate.batch_size after train"
    operation, marker, _ = said.partition(" does not have a deterministic implementation")
    if marker:
        return f"{operation}{marker}; set train.deterministic to false, or change the layer that uses it"
    return ""


def root() -> Path:
    """Return the user's repository; in `dvc exp run --temp` a stage runs in another folder."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


@contextmanager
def bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar if stdout is a terminal; yield the function that advances it."""
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)


@contextmanager
def clock(name: str, path: Path) -> Iterator[dict[str, Any]]:
    """Measure a stage and write its timings and memory (not reproducible) to a JSON file.

    Args:
        name: of the stage; measured here are "NAME/stage_seconds", and "NAME/started" and "NAME/ended" in UTC.

    Yields:
        A dict for further measurements.
    """
    measured: dict[str, Any] = {f"{name}/started": _now()}
    started = time.perf_counter()
    yield measured
    measured[f"{name}/ended"] = _now()
    files.write_row(path, {f"{name}/stage_seconds": round(time.perf_counter() - started, 3), **measured})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
