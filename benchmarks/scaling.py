"""The cost model of a training, measured: what a step costs at least and in fact, and how a training grows.

Operations and bytes of each layer come from `pipeline.cost`; the machine's best rates, measured first, turn them into
a least time; seconds and memory are then measured at four sizes of everything that a training grows with.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import growth, inputs, measuring, roofline, scaling_figures, trainings
from benchmarks.growth import Growth, Memory
from benchmarks.roofline import Floor, Peaks, Step
from pipeline import stage
from pipeline.config import loading
from pipeline.config.section import CLASSES
from pipeline.errors import PipelineError
from pipeline.models.common import numerics

STEP_IMAGES = 2000
"""Of the training in which the step is timed."""
MEMORY = ("batch", "width")
"""The quantities whose peak memory is measured."""


class Result(BaseModel):
    """All that was measured, and the settings it was measured with."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    peaks: Peaks
    layers: list[Floor]
    step: Step
    growth: dict[str, Growth]
    memory: dict[str, Memory]


def main(
    wanted: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
    arch: Annotated[
        Literal["speednet", "cnn", "resnet"], typer.Option(help="cnn: all but the resolution")
    ] = "speednet",
    repeats: Annotated[int, typer.Option(min=1, help="timed rounds; one more comes first")] = 3,
    images: Annotated[float, typer.Option(min=0.01, help="factor on the numbers of images")] = 1.0,
    sizes: Annotated[int, typer.Option(min=2, max=trainings.SIZES, help="of each quantity, the smallest")] = 4,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the result")] = None,
    figure: Annotated[Path | None, typer.Option(help="draw the growth as a PNG")] = None,
    layers: Annotated[Path | None, typer.Option(help="draw the layers of a step as a PNG")] = None,
    from_json: Annotated[Path | None, typer.Option(help="measure nothing: show and draw what --json wrote")] = None,
) -> None:
    """Measure what a training costs and how it grows: a few minutes on two cores."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    if from_json:
        result = read(from_json)
    else:
        place = measuring.choose(wanted)
        settings = {"arch": arch, "repeats": repeats, "images": images, "sizes": sizes}
        result = measure(settings, place, console)
    show(result, console)
    if not from_json:
        measuring.report(result.model_dump(exclude={"machine"}), place, json_file)
    name = ", ".join([result.settings["arch"], result.machine["device_name"], result.settings["precision"]])
    if figure:
        scaling_figures.growth(figure, result.growth, result.memory, name)
    if layers:
        scaling_figures.layers(layers, result.layers, result.step, name)


def read(path: Path) -> Result:
    """Read what `--json` wrote.

    Raises:
        PipelineError: it is something else.
    """
    try:
        return Result.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise PipelineError(f"{path}: not a result of benchmarks.scaling ({str(error).splitlines()[0]})") from None


def measure(settings: Mapping[str, Any], place: torch.device, console: Console) -> Result:
    """Measure everything.

    Args:
        settings: "arch", "repeats", "images" (a factor) and "sizes", as in `main`.
    """
    base, repeats, scale = loading.load(inputs.ROOT / "params.yaml"), settings["repeats"], settings["images"]
    numerics.prepare(place, deterministic=base.train.deterministic)
    quantities = trainings.quantities(base, settings["arch"], scale, settings["sizes"])
    total = sum(growth.trainings(quantity, repeats) for quantity in quantities.values())
    total += sum(len(quantities[name].cases) for name in MEMORY) + 2
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Redrawn rarely, as that takes time from what is measured.
    with Progress(
        *columns, console=console, refresh_per_second=1, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("best rates", total=total)
        peaks = roofline.measure_peaks(place)
        bar.update(task, advance=1, description="step")
        case = trainings.base(base, settings["arch"], max(CLASSES, round(scale * STEP_IMAGES)))
        floors, step = measure_step(case, place, peaks, repeats)
        bar.advance(task)
        growths, memory = {}, {}
        for name, quantity in quantities.items():
            bar.update(task, description=name)
            growths[name] = growth.measure(quantity, place, peaks, repeats, lambda: bar.advance(task))
            console.print(f"{name}: seconds grow with exponent {growths[name].exponent:.2f}")
        for name in MEMORY:
            bar.update(task, description=f"memory by {name}")
            memory[name] = growth.measure_memory(quantities[name], place, lambda: bar.advance(task))
    precision = numerics.choose_precision(base.train.precision, place)
    return Result(
        machine=measuring.machine(place),
        settings={**settings, "batch_size": case.train.batch_size, "precision": precision},
        peaks=peaks,
        layers=floors,
        step=step,
        growth=growths,
        memory=memory,
    )


def measure_step(case: trainings.Case, place: torch.device, peaks: Peaks, repeats: int) -> tuple[list[Floor], Step]:
    """Return the floors of a training's mean step, and what it takes in fact."""
    training = trainings.Training(case, place)
    training.prepare()
    floors = growth.floors(case, training.steps, place, peaks)
    timing = measuring.interleaved({"training": training}, repeats, place)["training"]
    seconds = [total / training.steps for total in timing.seconds]
    precision = numerics.choose_precision(case.train.precision, place)
    return floors, roofline.compare(floors, case.images / training.steps, seconds, peaks.flops(precision))


def show(result: Result, console: Console) -> None:
    """Print everything as tables."""
    step = result.step
    console.print(_peaks(result.peaks), _layers(result.layers, step))
    console.print(
        "Backward is as much as forward for the gradient of the weights, and again for that of the input: a fixed "
        "first layer has neither, the first trained layer only the former. The optimiser's products are in its column."
    )
    console.print(
        f"A step of {step.images:g} images: {step.gflop:.4g} GFLOP, {step.gb:.3g} GB; at least "
        f"{1e3 * step.floor_seconds:.4g} ms, measured {1e3 * step.median:.4g} ms: fraction of floor "
        f"{step.fraction_of_floor:.2f}, fraction of peak {step.fraction_of_peak:.2f}\n"
    )
    console.print(_growth(result.growth), _memory(result.memory))


def _peaks(peaks: Peaks) -> Table:
    table = _table("Best rates of this machine", "", "matmul, GFLOP/s", "convolution, GFLOP/s", "copy, GB/s")
    for precision, rates in peaks.gflops.items():
        copying = f"{peaks.gb_per_s:.1f}" if precision == "fp32" else ""
        table.add_row(precision, f"{rates['matmul']:,.0f}", f"{rates['convolution']:,.0f}", copying)
    return table


def _layers(floors: list[Floor], step: Step) -> Table:
    columns = ("output", "forward, GFLOP", "backward", "MB", "FLOP/byte", "floor, ms", "share", "bound by")
    table = _table("Layers of a step", "layer", "kind", *columns)
    for floor in floors:
        table.add_row(
            floor.name,
            floor.kind,
            " x ".join(map(str, floor.output)),
            f"{floor.forward_gflop:.3f}",
            f"{floor.backward_gflop:.3f}",
            f"{1e3 * floor.gb:.1f}",
            f"{floor.intensity:.1f}",
            f"{1e3 * floor.seconds:.3f}",
            f"{floor.seconds / step.floor_seconds:.1%}",
            floor.bound,
        )
    return table


def _growth(growths: Mapping[str, Growth]) -> Table:
    table = _table("Growth of seconds", "", "sizes", "medians, s", "exponent", "of the floor", "in theory")
    for name, one in growths.items():
        low, high = one.expected
        table.add_row(
            name,
            " ".join(f"{size:g}" for size in one.sizes),
            " ".join(f"{median:.3g}" for median in one.medians),
            f"{one.exponent:.2f}",
            f"{one.floor_exponent:.2f}",
            f"{low:g}" if low == high else f"{low:g} to {high:g}",
        )
    return table


def _memory(memory: Mapping[str, Memory]) -> Table:
    table = _table("Peak memory", "", "sizes", "peaks, MiB", "before, MiB", "MiB for each")
    for name, one in memory.items():
        sizes = " ".join(f"{size:g}" for size in one.sizes)
        peaks = " ".join(f"{peak:.0f}" for peak in one.peak_mib)
        table.add_row(name, sizes, peaks, f"{min(one.start_mib):.0f}", f"{one.slope_mib:.3g}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


if __name__ == "__main__":
    stage.command(main)
