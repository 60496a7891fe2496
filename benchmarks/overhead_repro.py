"""`dvc repro` with nothing to do: this project's pipeline against an empty one of as many stages."""

import os
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from benchmarks import inputs, measuring
from benchmarks.measuring import BenchmarkError
from pipeline.experiments import dependencies
from pipeline.experiments.repository import search_path

NOTHING = "Data and pipelines are up to date."
QUIET = "[core]\n    analytics = false\n    check_update = false\n"

SMALL = {
    "data.dataset": "shapes10",
    "data.shapes10.train_images": 600,
    "data.shapes10.test_images": 1000,
    "data.val_images": 100,
    "model.arch": "cnn",
    "model.cnn.widths": [8, 16],
    "model.cnn.convs_per_block": 1,
    "model.cnn.hidden": [],
    "train.device": "cpu",
    "train.epochs": 1,
    "train.batch_size": 100,
    "train.resolutions": [32],
    "tracking.enabled": False,
}
"""Parameters with which the whole pipeline takes seconds; nothing of it runs while it is timed."""


def measure(source: Path, repeats: int, folder: Path) -> dict[str, Any]:
    """Run a copy of the pipeline once, then time `dvc repro`.

    Args:
        source: params.yaml.
        folder: an empty one, for both repositories.

    Returns:
        "noop_repro": the time in this pipeline over the time in the empty one; and the median seconds of each.
    """
    stages = list(dependencies.stages(inputs.ROOT))
    with measuring.bar(f"running a copy of the pipeline once, {len(stages)} stages", 1):
        ours = pipeline_copy(folder / "ours", source)
    empty = empty_pipeline(folder / "empty", stages)

    title = f"dvc repro with nothing to do: 2 pipelines, {repeats} + 1 times"
    with measuring.bar(title, 2 * (repeats + 1)) as advance:
        sides = {"ours": partial(expect_nothing, ours), "empty": partial(expect_nothing, empty)}
        timings = measuring.interleaved(sides, repeats, torch.device("cpu"), on_call=advance)
    return {
        "noop_repro": round(measuring.ratio(timings["ours"], timings["empty"]), 4),
        **{f"noop_repro/{name}/seconds": round(timing.median, 3) for name, timing in timings.items()},
        "noop_repro/seconds": {name: timing.seconds for name, timing in timings.items()},
    }


def expect_nothing(repository: Path) -> None:
    """Run `dvc repro`.

    Raises:
        BenchmarkError: there was something to do.
    """
    said = dvc(repository, "repro")
    if NOTHING not in said:
        raise BenchmarkError(f"dvc repro in {repository}: expected nothing to do, found: {said.strip()[-200:]}")


def pipeline_copy(folder: Path, source: Path, changes: Mapping[str, Any] = SMALL) -> Path:
    """Make a repository of this one's files with changed parameters, run its pipeline, and commit."""
    for name in filter(None, run(inputs.ROOT, "git", "ls-files", "-z").split("\0")):
        if (inputs.ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inputs.ROOT / name, folder / name)
    write_params(folder, source, changes)
    run(folder, "git", "init", "-q")
    (folder / ".dvc/config.local").write_text(QUIET)
    dvc(folder, "repro")
    commit(folder)
    return folder


def write_params(folder: Path, source: Path, changes: Mapping[str, Any]) -> None:
    """Write a params.yaml with changed values to a repository."""
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(inputs.read_tree(source, dict(changes)), file)


def empty_pipeline(folder: Path, stages: list[str]) -> Path:
    """Make a repository whose stages do nothing; each has one dependency, as one without runs every time."""
    folder.mkdir()
    (folder / "input").write_text("nothing\n")
    with (folder / "dvc.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump({"stages": {name: {"cmd": "true", "deps": ["input"]} for name in stages}}, file)
    run(folder, "git", "init", "-q")
    dvc(folder, "init", "-q")
    (folder / ".dvc/config.local").write_text(QUIET)
    dvc(folder, "repro")
    commit(folder)
    return folder


def commit(repository: Path) -> None:
    run(repository, "git", "add", "-A")
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
    run(repository, "git", *identity, "commit", "-q", "-m", "start")


def dvc(repository: Path, *arguments: str) -> str:
    """Run a DVC command with this interpreter and return what it said."""
    return run(repository, sys.executable, "-m", "dvc", *arguments)


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder, away from the user's DVC and MLflow, and return what it printed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    return measuring.run(folder, command, environment=kept | {"PATH": search_path()})
