"""The train stage as a user starts it against the loop alone: the same images, seeds, steps and validation."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from benchmarks import inputs, measuring
from benchmarks.apart import Apart
from benchmarks.measuring import BenchmarkError, Timing
from pipeline import files
from pipeline.config.loading import load
from pipeline.data import dataset
from pipeline.training import loop as training
from pipeline.training.checkpoint import TrainingState

Seconds = dict[str, float]
"""Of one training: "work", all but start-up; "loop", the epochs and their validation; "startup", of a stage only."""


class Unsaved(TrainingState):
    """A training state that is never saved, and that there is nothing of to go on from."""

    def due(self) -> bool:
        return False


def measure(tree: Any, archive: Path | None, *, train: int, val: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Train `rounds` times on each side, in turn, each time in a new process and with another seed.

    A first, untimed training, as short as can be, makes the MLflow store.

    Args:
        tree: a params.yaml's content; `train.epochs` decides how long it takes.
        train, val: images.
        folder: an empty one, for everything that is written.

    Returns:
        "train_stage_vs_bare_loop": the stage's wall time, from after its imports to its end, over that of loading
        the images and training alone; "loop_vs_bare_loop": the same of the epochs only, which saving and tracking
        may slow down from the side; and the seconds of each.
    """
    data, params = folder / "data", folder / "params.yaml"
    dataset.save(data, inputs.images(archive, train=train, val=val))
    whole, least = tree["train"]["epochs"], len(tree["train"]["resolutions"])
    sides: dict[str, Callable[[], Seconds]] = {
        "stage": lambda: stage(folder, params, data),
        "bare": lambda: bare(params, data),
    }
    found: dict[str, list[Seconds]] = {name: [] for name in sides}

    def side(name: str) -> Callable[[], None]:
        def run() -> None:
            seed = len(found[name])
            write(params, tree, {"seed": seed, "epochs": whole if seed else least})
            found[name].append(sides[name]())

        return run

    title = f"train stage against bare loop: {rounds} trainings each of {whole} epochs of {train:,} images"
    with measuring.bar(title, len(sides) * (rounds + 1)) as advance:
        # What is compared is measured in the processes, without their start.
        measuring.interleaved({name: side(name) for name in sides}, rounds, torch.device("cpu"), on_call=advance)
    timings = {
        f"{name}_{key}": Timing([seconds[key] for seconds in found[name][1:]])
        for name in sides
        for key in found[name][0]
    }
    return {
        "train_stage_vs_bare_loop": round(measuring.ratio(timings["stage_work"], timings["bare_work"]), 4),
        "loop_vs_bare_loop": round(measuring.ratio(timings["stage_loop"], timings["bare_loop"]), 4),
        **{f"{name}_seconds": round(timing.median, 3) for name, timing in timings.items()},
        "train/seconds": {name: timing.seconds for name, timing in timings.items()},
    }


def write(path: Path, tree: Any, train: Mapping[str, Any]) -> None:
    """Write a params.yaml with some values of its train section changed."""
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tree | {"train": tree["train"] | dict(train)}, file)


def stage(folder: Path, params: Path, data: Path) -> Seconds:
    """Run the train stage in a terminal, with its store, checkpoints and outputs in a folder."""
    runtime = folder / "runtime.json"
    paths = {
        "params": params,
        "data": data,
        "out": folder / "model",
        "history": folder / "history.csv",
        "layers": folder / "layers.csv",
        "metrics": folder / "metrics.json",
        "time": folder / "time.json",
        "details": folder / "details.json",
        "runtime": runtime,
        "checkpoints": Path(".checkpoints"),
    }
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    started = time.perf_counter()
    in_terminal(
        [sys.executable, "-m", "stages.train", *options], kept | {"DVC_ROOT": str(folder), "TERM": "xterm-256color"}
    )
    wall = time.perf_counter() - started
    measured = files.read_row(runtime) | files.read_json(paths["time"])
    loop = sum(measured[f"train/{part}seconds"] for part in ("", "val_", "preparation_"))
    work = measured["train/stage_seconds"]
    return {"work": work, "loop": loop, "startup": wall - work}


def in_terminal(command: list[str], environment: Mapping[str, str]) -> None:
    """Run a command of this repository in a terminal of its own, where it draws what it draws for a person.

    Raises:
        BenchmarkError: it failed.
    """
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=inputs.ROOT, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # how Linux says that nobody has the terminal open any more
            while chunk := os.read(ours, 1 << 16):
                said = (said + chunk)[-2000:]
    os.close(ours)
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise BenchmarkError(f"{' '.join(command[:3])} ended with exit code {process.returncode}: {last[-1]}")


def bare(params: Path, data: Path) -> Seconds:
    """Load the images and train in a new process; nothing is saved, tracked or shown."""
    with Apart(prepare_bare, params, data) as run:
        seconds: Seconds = run()
    return seconds


def prepare_bare(params: Path, data: Path) -> Callable[[], Seconds]:
    """Return the function that trains once and returns its times."""
    settings = load(params)

    def run() -> Seconds:
        started = time.perf_counter()
        splits = dataset.load(data, "train", "val")
        unsaved = Unsaved(data / "unsaved")
        progress = training.train(settings, splits, unsaved).progress
        work = time.perf_counter() - started
        return {"work": work, "loop": progress.seconds + progress.val_seconds + progress.preparation_seconds}

    return run
