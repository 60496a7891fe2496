"""From a changed parameter to an answer: the wall time of `dvc exp run` by stage, beside the training itself."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import BenchmarkError
from benchmarks.overhead_repro import commit, dvc, pipeline_copy, write_params
from pipeline import files
from pipeline.experiments.repository import search_path

TINY = {
    "data.dataset": "shapes10",
    "data.shapes10.train_images": 7500,
    "data.shapes10.test_images": 10000,
    "data.val_images": 5000,
    "train.epochs": 2,
    "train.device": "cpu",
    "tracking.enabled": True,
}
"""Parameters of the small experiment, otherwise those of params.yaml: 2,500 training images, the others as many."""

CHANGE = "model.cnn.activation=tanh"


def measure(source: Path, archive: Path | None, folder: Path) -> dict[str, Any]:
    """Run the small pipeline once, then an experiment with one changed parameter, and time the latter.

    Args:
        source: params.yaml.
        archive: dataset of the experiment, which then has all other parameters as in params.yaml; None: it is small.
        folder: an empty one, for the repository.

    Returns:
        "loop/seconds", the wall time of the command; "loop/training_seconds", of epochs and validation; "loop/beyond",
        the difference; and "loop/STAGE_seconds" for each stage that ran, from DVC's start of it to that of the next.
    """
    with measuring.bar("running the small pipeline, then an experiment with one changed parameter", 2) as advance:
        repository = pipeline_copy(folder / "repository", source, TINY)
        if archive:
            own = {"data.archive": str(archive.resolve()), "data.sha256": files.sha256(archive)}
            write_params(repository, source, own | {"train.device": "cpu"})
            dvc(repository, "repro", "preprocess")
            commit(repository)
        advance()
        starts, ended = _timed(repository, "exp", "run", "--name", "changed", "--set-param", CHANGE)
        advance()
    names = list(starts)
    until = [*list(starts.values())[1:], ended]
    stages = {name: round(end - starts[name], 2) for name, end in zip(names, until, strict=True)}
    runtime = files.read_row(repository / "metrics/runtime/train.json")
    training = files.read_json(repository / "metrics/time.json")["train/seconds"] + runtime["train/val_seconds"]
    return {
        "loop/seconds": round(ended, 2),
        "loop/training_seconds": round(training, 2),
        "loop/beyond_seconds": round(ended - training, 2),
        **{f"loop/{name}_seconds": seconds for name, seconds in stages.items()},
    }


def _timed(repository: Path, *arguments: str) -> tuple[dict[str, float], float]:
    """Run DVC and return when it started each stage, "dvc" for its own start, and when it ended, in seconds.

    Raises:
        BenchmarkError: it failed.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    started = time.perf_counter()
    starts, lines = {"dvc": 0.0}, []
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=repository,
        env=kept | {"PATH": search_path(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Running stage '"):
                starts[line.split("'")[1]] = time.perf_counter() - started
    if process.returncode:
        raise BenchmarkError(f"dvc {' '.join(arguments)} in {repository} failed: {''.join(lines)[-500:].strip()}")
    return starts, time.perf_counter() - started
