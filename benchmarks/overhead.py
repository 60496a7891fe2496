"""What the pipeline costs beside the training: the train stage, the start of stages, a `dvc repro` without work.

Four parts, of which `--part` chooses: "train", the train stage with its checkpoints, live tracking and progress
against the same training alone; "startup", the stages' imports and how soon a mistake is told against `import torch`;
"repro", `dvc repro` with nothing to do against an empty pipeline; "loop", an experiment with one changed parameter,
stage by stage.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import inputs, measuring, overhead_startup, overhead_train
from benchmarks.measuring import BenchmarkError
from pipeline import stage
from pipeline.config import loading as parameters

NEEDS = {"train": ("dvc", "mlflow"), "startup": (), "repro": ("dvc", "mlflow"), "loop": ("dvc", "mlflow")}
"""The parts, with the packages that only they need."""

LONG_ENOUGH = 60
"""Seconds of training from which the stage's fixed costs count for what they are."""


def main(
    part: Annotated[list[str] | None, typer.Option(help="May be given several times. Default: all.")] = None,
    archive: inputs.ArchiveOption = None,
    params: inputs.ParamsOption = Path("params.yaml"),
    images: Annotated[int, typer.Option(min=1, help="Training images of part train.")] = 15000,
    val_images: Annotated[int, typer.Option(min=1, help="Validation images of part train.")] = 5000,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training of part train.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Trainings of each side of part train.")] = 3,
    stages: Annotated[
        list[str] | None, typer.Option("--stage", help="Of part startup; may be given several times. Default: all.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each command of the other parts.")] = 7,
    device: inputs.DeviceOption = "auto",
    json: inputs.JsonOption = None,
) -> None:
    parts, names = part or list(NEEDS), stages or overhead_startup.STAGES
    for option, given, known in (("--part", parts, list(NEEDS)), ("--stage", names, overhead_startup.STAGES)):
        for name in given:
            if name not in known:
                raise BenchmarkError(f"{option}: found {name}, expected one of {', '.join(known)}")
    place = measuring.choose(device)
    changes = {"train.device": str(place), "train.epochs": epochs, "tracking.enabled": True}
    tree = inputs.read_tree(params, changes)
    settings = parameters.validate(tree, str(params))
    if images < settings.train.batch_size:
        raise BenchmarkError(
            f"--images: found {images}, expected at least the batch size, {settings.train.batch_size}"
        )
    results: dict[str, Any] = {}
    for name in dict.fromkeys(parts):
        missing = [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]
        if missing:
            print(f"skipped: part {name} needs {' and '.join(missing)}, not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            if name == "train":
                results |= overhead_train.measure(
                    tree, archive, train=images, val=val_images, rounds=rounds, folder=Path(folder)
                )
                show_train(results)
            elif name == "startup":
                results |= overhead_startup.measure(names, repeats, Path(folder))
                show_startup(results, names)
            elif name == "repro":
                from benchmarks import overhead_repro  # which imports DVC

                results |= overhead_repro.measure(params, repeats, Path(folder))
                show_repro(results)
            else:
                from benchmarks import overhead_loop  # which imports DVC

                results |= overhead_loop.measure(params, archive, Path(folder))
                show_loop(results)
    measuring.report(results, place, json)


def show_train(found: dict[str, Any]) -> None:
    """Print what the train stage adds."""
    bare = found["bare_work_seconds"]
    table = Table(title="train stage", title_justify="left")
    for column in ("", "stage, s", "bare loop, s", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for label, key, ratio in (
        ("all but start-up", "work", "train_stage_vs_bare_loop"),
        ("epochs and validation", "loop", "loop_vs_bare_loop"),
    ):
        seconds = (f"{found[f'{side}_{key}_seconds']:.2f}" for side in ("stage", "bare"))
        table.add_row(label, *seconds, f"{found[ratio]:.3f} x")
    table.add_row("start-up: interpreter, imports", f"{found['stage_startup_seconds']:.2f}", "", "")
    Console().print(table)
    if bare < LONG_ENOUGH:
        print(
            f"a training took {bare:.0f} s: what the stage costs once weighs more than in one of a minute (--epochs)"
        )


def show_startup(found: dict[str, Any], names: list[str]) -> None:
    """Print how each stage starts."""
    table = Table(title=f"start; import torch takes {found['startup/torch/seconds']:.2f} s", title_justify="left")
    table.add_column("stage")
    for column in ("imports, s", "vs torch", "mistake told, s", "vs torch"):
        table.add_column(column, justify="right")
    for name in names:
        started, told = (
            (f"{found[f'{key}/{name}/seconds']:.2f}", f"{found[f'{key}/{name}']:.2f} x")
            for key in ("startup", "mistake")
        )
        table.add_row(name, *started, *told)
    Console().print(table)


def show_repro(found: dict[str, Any]) -> None:
    """Print what a `dvc repro` without work costs."""
    table = Table(title="dvc repro with nothing to do", title_justify="left")
    for column in ("pipeline", "s", "ratio"):
        table.add_column(column, justify="left" if column == "pipeline" else "right")
    table.add_row("this one", f"{found['noop_repro/ours/seconds']:.2f}", f"{found['noop_repro']:.3f} x")
    table.add_row("empty", f"{found['noop_repro/empty/seconds']:.2f}", "")
    Console().print(table)


def show_loop(found: dict[str, Any]) -> None:
    """Print where the time of an experiment goes."""
    table = Table(title="an experiment with one changed parameter", title_justify="left")
    table.add_column("part")
    table.add_column("s", justify="right")
    parts = {key.removeprefix("loop/").removesuffix("_seconds"): value for key, value in found.items() if "_" in key}
    for name, seconds in parts.items():
        if name not in ("training", "beyond"):
            table.add_row("DVC before the first stage" if name == "dvc" else f"stage {name}", f"{seconds:.1f}")
    table.add_section()
    table.add_row("in all", f"{found['loop/seconds']:.1f}")
    table.add_row("of it training: epochs and validation", f"{parts['training']:.1f}")
    table.add_row("beyond the training", f"{parts['beyond']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    stage.command(main)
