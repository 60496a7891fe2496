"""Training throughput in images per second: this project's loop against the loop of tutorials and the bare step.

Each side runs in a process of its own, one epoch in turn. "Bare step" is the ceiling: forward, backward and update on
one resident batch. On a processor under Linux, the same loop without the allocator setting shows what that is worth.
"""

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import inputs, loops, measuring
from benchmarks.apart import Apart
from benchmarks.measuring import BenchmarkError, Timing
from pipeline import stage
from pipeline.config.schema import Params
from pipeline.data.dataset import Dataset

IMAGES_ON_PROCESSOR, IMAGES_ON_GPU = 5000, 45000
WHOLE = {"train.resolutions": [32], "train.hardest": 1.0}
"""All epochs alike: all images, as large as they are."""

RATIOS = {"vs_conventional": "conventional", "vs_bare_step": "bare_step", "allocator": "without_allocator"}
"""What a ratio compares ours with."""
LABELS = {
    "conventional": "conventional loop",
    "bare_step": "bare step",
    "without_allocator": "ours without the allocator setting",
}


def main(
    arch: inputs.ArchOption = None,
    archive: inputs.ArchiveOption = None,
    params: inputs.ParamsOption = Path("params.yaml"),
    images: Annotated[int | None, typer.Option(min=1, help="In an epoch; none: 5000, on a GPU 45000.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed epochs of each side.")] = 5,
    device: inputs.DeviceOption = "auto",
    json: inputs.JsonOption = None,
) -> None:
    place = measuring.choose(device)
    wanted = images or (IMAGES_ON_GPU if place.type == "cuda" else IMAGES_ON_PROCESSOR)
    results: dict[str, Any] = {"rounds": rounds}
    for name in arch or inputs.ARCHS:
        changes = {"model.arch": name, "train.device": str(place)} | WHOLE | inputs.NARROW_SPEEDNET
        settings = inputs.load_params(params, changes)
        size = settings.train.batch_size
        if wanted < size:
            raise BenchmarkError(f"--images: found {wanted}, expected at least train.batch_size of {params}, {size}")
        data = inputs.images(archive, train=wanted - wanted % size)
        results |= {"data": data.metadata.name, "images": len(data["train"])}
        results[name] = measure(name, settings, data, rounds, place)
        show(name, results[name])
    measuring.report(results, place, json)


def measure(name: str, params: Params, data: Dataset, rounds: int, place: torch.device) -> dict[str, Any]:
    """Time one network on all sides.

    Returns:
        For "ours", "conventional", "bare_step" and, where there is one, "without_allocator": images per second, and
        under "seconds" and "peak_memory_mib" those of each. Under "vs_conventional", "vs_bare_step" and "allocator":
        how many times as fast as that side ours is.
    """
    builds: dict[str, Callable[[Params, Dataset], loops.Epoch]] = {
        "ours": loops.ours,
        "conventional": loops.conventional,
        "bare_step": loops.bare_step,
    }
    if place.type == "cpu" and sys.platform == "linux":
        builds["without_allocator"] = functools.partial(loops.ours, allocator=False)
    images, memory = len(data["train"]), dict[str, float]()
    calls = len(builds) * (rounds + 1)
    title = f"{name}: {len(builds)} sides, {rounds} + 1 epochs each of {images:,} images on {place}"
    with ExitStack() as stack, measuring.bar(title, calls) as advance:

        def side(key: str) -> Callable[[], None]:
            process = stack.enter_context(Apart(builds[key], params, data))
            return lambda: memory.update({key: round(process(), 1)})

        # The sides wait for their devices themselves.
        cpu = torch.device("cpu")
        timings = measuring.interleaved({key: side(key) for key in builds}, rounds, cpu, on_call=advance)
    found: dict[str, Any] = {key: round(images / timing.median, 1) for key, timing in timings.items()}
    found |= {key: ratio(timings, other) for key, other in RATIOS.items() if other in timings}
    return found | {"peak_memory_mib": memory, "seconds": {key: timing.seconds for key, timing in timings.items()}}


def ratio(timings: dict[str, Timing], other: str) -> float:
    """Return how many times as fast as another side ours is."""
    return round(measuring.ratio(timings[other], timings["ours"]), 4)


def show(name: str, found: dict[str, Any]) -> None:
    """Print one network's table."""
    table = Table(title=f"{name}: training throughput", title_justify="left")
    for column in ("side", "images/s", "ours is", "peak memory, MiB"):
        table.add_column(column, justify="left" if column == "side" else "right")
    table.add_row("ours", f"{found['ours']:,.0f}", "", f"{found['peak_memory_mib']['ours']:,.0f}")
    for key, other in RATIOS.items():
        if other in found:
            memory = f"{found['peak_memory_mib'][other]:,.0f}"
            table.add_row(LABELS[other], f"{found[other]:,.0f}", f"{found[key]:.3f} x", memory)
    Console().print(table)


if __name__ == "__main__":
    stage.command(main)
