"""Inference in images per second and latency: ONNX Runtime with the exported graph against PyTorch.

Both take uint8 images from memory and give probabilities there, as the exported graph does. Weights are untrained, as
no speed depends on them. ONNX Runtime runs on the processor also with `--device cuda`, which adds PyTorch on the GPU.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import inputs, measuring
from benchmarks.measuring import Timing
from pipeline import stage
from pipeline.config.schema import Params
from pipeline.data.dataset import Dataset
from pipeline.export import graph
from pipeline.models.common import numerics
from pipeline.training import loop

BATCH_SIZES = (1, 32, 1024)

FEWEST_CALLS = 3
"""In a round of one side."""

FITTED_IMAGES = 1000
"""That a first layer is computed from, where it is not learned."""

Images = npt.NDArray[np.uint8]
Call = Callable[[Images], object]


def main(
    arch: inputs.ArchOption = None,
    params: inputs.ParamsOption = Path("params.yaml"),
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="May be given several times. Default: 1, 32 and 1024.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed turns of each side.")] = 7,
    seconds: Annotated[float, typer.Option(min=0, help="Length of a turn.")] = 0.5,
    device: inputs.DeviceOption = "auto",
    json: inputs.JsonOption = None,
) -> None:
    place, sizes = measuring.choose(device), batch_size or BATCH_SIZES
    numerics.prepare(place, deterministic=True)  # as evaluation does
    results: dict[str, Any] = {"rounds": rounds, "seconds_a_turn": seconds}
    for name in arch or inputs.ARCHS:
        settings = inputs.load_params(params, {"model.arch": name} | inputs.NARROW_SPEEDNET)
        data = inputs.images(None, train=max(*sizes, FITTED_IMAGES))
        with measuring.bar(f"{name}: exporting the untrained network", 1):
            calls = sides(settings, data, place)
        for size in sizes:
            found = measure(f"{name}, batches of {size}", calls, data["train"].images[:size], rounds, seconds)
            show(f"{name}: inference, batches of {size}", found)
            results |= {
                f"{name}/{side}/{size}/{key}": value for side, row in found.items() for key, value in row.items()
            }
    measuring.report(results, place, json)


def sides(params: Params, data: Dataset, place: torch.device) -> dict[str, Call]:
    """Return what classifies (N, 32, 32, 3) uint8 images, by name.

    "torch" is float32 on the processor. Names with "bf16" are there where the hardware computes in it; those with
    "cuda" copy the images to the GPU and the probabilities back.
    """
    cpu = torch.device("cpu")
    model = loop.initial_model(params.model, params.train, data, cpu).eval()
    session = graph.session(graph.to_onnx(model, data.metadata.classes, 32, {}))
    found: dict[str, Call] = {"onnx": lambda images: session.run([graph.OUTPUT], {graph.INPUT: images})}
    for where in dict.fromkeys((cpu, place)):
        suffix = "" if where == cpu else f"_{where.type}"
        copy = loop.initial_model(params.model, params.train, data, where)
        network = graph.Served(copy.to(memory_format=torch.channels_last)).eval()
        found[f"torch{suffix}"] = torch_call(network, where, "fp32")
        if numerics.choose_precision("auto", where) == "bf16":
            found[f"torch{suffix}_bf16"] = torch_call(network, where, "bf16")
    return found


def torch_call(network: torch.nn.Module, place: torch.device, precision: str) -> Call:
    """Return the function that classifies images with PyTorch."""

    @torch.inference_mode()
    def call(images: Images) -> object:
        with numerics.autocast(place, precision):
            return network(torch.from_numpy(images).to(place)).cpu()

    return call


def measure(
    title: str, calls: dict[str, Call], images: Images, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Time all sides with one batch.

    Args:
        seconds: that a side goes on for before it is another's turn.

    Returns:
        For each side "images_per_second", "latency_ms" (median of all calls), "latency_ms_p95" and, but for "torch",
        "vs_torch": how many times as fast as "torch" it is.
    """
    latencies: dict[str, list[list[float]]] = {name: [] for name in calls}

    def turn(name: str) -> Callable[[], None]:
        return lambda: latencies[name].append(repeated(lambda: calls[name](images), seconds))

    with measuring.bar(
        f"{title}: {len(calls)} sides, {rounds} + 1 turns of {seconds:g} s", len(calls) * (rounds + 1)
    ) as advance:
        # A call returns when its result is in memory: there is no device to wait for.
        measuring.interleaved({name: turn(name) for name in calls}, rounds, torch.device("cpu"), on_call=advance)
    # The first turn was the warm-up.
    means = {name: Timing([float(np.mean(times)) for times in turns[1:]]) for name, turns in latencies.items()}
    found = {}
    for name, turns in latencies.items():
        times = np.concatenate(turns[1:]) * 1e3
        row = {
            "images_per_second": round(len(images) / means[name].median, 1),
            "latency_ms": round(float(np.median(times)), 4),
            "latency_ms_p95": round(float(np.percentile(times, 95)), 4),
        }
        found[name] = (
            row if name == "torch" else row | {"vs_torch": round(measuring.ratio(means["torch"], means[name]), 4)}
        )
    return found


def repeated(call: Callable[[], object], seconds: float) -> list[float]:
    """Call a function for some seconds, at least a few times, and return the seconds of each call."""
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < FEWEST_CALLS or time.perf_counter() < deadline:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def show(title: str, found: dict[str, dict[str, float]]) -> None:
    """Print the table of one network and batch size."""
    table = Table(title=title, title_justify="left")
    for column in ("side", "images/s", "vs torch", "median, ms", "95th percentile, ms"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, row in found.items():
        times = f"{row['vs_torch']:.3f} x" if "vs_torch" in row else ""
        speed, median, p95 = row["images_per_second"], row["latency_ms"], row["latency_ms_p95"]
        table.add_row(name, f"{speed:,.0f}", times, f"{median:.3f}", f"{p95:.3f}")
    Console().print(table)


if __name__ == "__main__":
    stage.command(main)
