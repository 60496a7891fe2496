"""Time to accuracy: presets of this pipeline against the published recipe of cifar10-airbench, on the same images.

Both sides train on all training images of the archive and are judged on its test images, once, at the end, with six
views. Timed on both sides: the first layer's computation and every training step with its augmentation. Not timed:
reading the archive, building, compiling and recording, and evaluation. Presets were chosen on validation images that
were taken from the training images.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import airbench_muon, airbench_package, inputs, measuring
from benchmarks.airbench_muon import Outcome, Recipe
from pipeline import files, stage
from pipeline.archives import cifar10
from pipeline.config import presets
from pipeline.data import dataset
from pipeline.errors import PresetError
from pipeline.evaluation import inference
from pipeline.hardware import device
from pipeline.training import loop
from pipeline.training.checkpoint import TrainingState

PEERS = {
    "fast": Recipe(widths=(32, 64, 128), epochs=4, batch_size=1000, lr=0.17),
    "brisk": Recipe(widths=(32, 64, 128), epochs=8, batch_size=1000, lr=0.17),
    "balanced": Recipe(widths=(32, 128, 256), epochs=5, batch_size=1000, lr=0.17),
    "accurate": Recipe(),
}
"""The recipe that each preset is held against: the published one for the largest, for the others scaled down."""


@dataclass(frozen=True)
class Sides:
    """All runs of one preset and of its peer, in the order of the seeds."""

    ours: list[Outcome]
    peer: list[Outcome]


def main(
    archive: Annotated[Path, typer.Option(help="The images, in CIFAR-10's binary layout (.tar.gz).")],
    device_name: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N.")] = "auto",
    runs: Annotated[int, typer.Option(min=1, help="Seeds on each side.")] = 3,
    preset: Annotated[list[str] | None, typer.Option(help="Which; may be given several times. Default: all.")] = None,
    package: Annotated[bool, typer.Option(help="Run the airbench package, too (CUDA only).")] = False,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    names = preset or list(PEERS)
    for name in names:
        if name not in PEERS:
            raise PresetError(f"--preset: found {name}, expected one of {', '.join(PEERS)}")
    place = measuring.choose(device_name)
    if package:
        airbench_package.require(place)
    images = read(archive)
    about = cifar10.display_name("cifar10", files.sha256(archive))
    print(f"{__doc__}\n{len(images['train']):,} training and {len(images['test']):,} test images of {about}\n")
    results: dict[str, Any] = {"data": about, "runs": runs}
    table = Table("preset", "side", "n", "accuracy, %", "seconds of training", "vs peer")
    for name in names:
        sides = _run(name, images, place, runs)
        others = [airbench_package.run(images, seed) for seed in range(runs)] if package else []
        results[name] = _summary(name, sides, others)
        for row in _rows(name, results[name]):
            table.add_row(*row)
    Console().print(table)
    measuring.report(results, place, json_file)


def _run(name: str, images: dataset.Dataset, place: torch.device, runs: int) -> Sides:
    """Train both sides with each seed, turn by turn; a short warm-up comes before the first, on a GPU."""
    sides = Sides([], [])
    ours = partial(train_ours, name, images, place)
    peer = partial(train_peer, PEERS[name], images, place)
    with _progress() as bar:
        if place.type == "cuda":
            peer(0, bar("warm-up, peer"))
            ours(0, bar("warm-up, ours"))
        for seed in range(runs):
            order = [(sides.ours, ours, "ours"), (sides.peer, peer, "peer")]
            for found, side, label in order if seed % 2 == 0 else reversed(order):
                found.append(side(seed, bar(f"{name}, seed {seed}, {label}")))
    return sides


def train_ours(
    name: str, images: dataset.Dataset, place: torch.device, seed: int, tell: Callable[[float], None]
) -> Outcome:
    params = presets.find(name).applied(inputs.ROOT / "params.yaml")
    train = params.train.model_copy(update={"seed": seed, "device": str(place)})
    started = time.perf_counter()
    loop.initial_model(params.model, train, images, place)  # once more: the training does not time its own
    device.synchronize(place)
    first_layer = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        seeded = params.model_copy(update={"train": train})
        result = loop.train(seeded, images, TrainingState(Path(folder)), on_step=lambda step: tell(step.done))
    test, options = images["test"], params.evaluate
    probs = inference.predict(result.model, test, batch_size=options.batch_size, place=place)
    averaged = inference.predict_views(result.model, test, probs, options, place)
    return Outcome(first_layer + result.progress.seconds, float((averaged.argmax(1) == test.labels).mean()))


def train_peer(
    recipe: Recipe, images: dataset.Dataset, place: torch.device, seed: int, tell: Callable[[float], None]
) -> Outcome:
    pixels, labels = (
        tuple(torch.from_numpy(getattr(images[split], kind)).to(place) for split in ("train", "test"))
        for kind in ("images", "labels")
    )
    planes = (pixels[0].permute(0, 3, 1, 2), pixels[1].permute(0, 3, 1, 2))
    return airbench_muon.train(recipe, planes, (labels[0].long(), labels[1].long()), seed=seed, on_step=tell)


def read(archive: Path) -> dataset.Dataset:
    """Return all training images, the test images, and as "val", which decides nothing, ten of the former."""
    raw = cifar10.read(archive)
    train = dataset.Split(raw.train_images, raw.train_labels)
    mean, std = dataset.channel_statistics(raw.train_images)
    metadata = dataset.Metadata("CIFAR-10", files.sha256(archive), raw.classes, mean, std, len(train))
    val = dataset.Split(raw.train_images[:10], raw.train_labels[:10])
    test = dataset.Split(raw.test_images, raw.test_labels)
    return dataset.Dataset(metadata, {"train": train, "val": val, "test": test})


def _summary(name: str, sides: Sides, package: list[Outcome]) -> dict[str, Any]:
    pairs = zip(sides.ours, sides.peer, strict=True)
    result: dict[str, Any] = {
        "preset": presets.find(name).values,
        "peer_recipe": asdict(PEERS[name]),
        "ours": _statistics(sides.ours),
        "peer": _statistics(sides.peer),
        "vs_peer": statistics.median(ours.seconds / peer.seconds for ours, peer in pairs),
    }
    if package:
        result["package"] = _statistics(package)
        result["vs_package"] = result["ours"]["seconds_mean"] / result["package"]["seconds_mean"]
    return result


def _statistics(outcomes: list[Outcome]) -> dict[str, Any]:
    accuracies, seconds = [o.accuracy for o in outcomes], [o.seconds for o in outcomes]
    return {
        "n": len(outcomes),
        "accuracy_mean": float(np.mean(accuracies)),
        "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(outcomes) > 1 else None,
        "seconds_mean": float(np.mean(seconds)),
        "seconds_sd": float(np.std(seconds, ddof=1)) if len(outcomes) > 1 else None,
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def _rows(name: str, summary: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for side in ("ours", "peer", "package"):
        if side not in summary:
            continue
        found = summary[side]
        ratio = {"ours": "", "peer": f"{summary['vs_peer']:.2f}x", "package": f"{summary.get('vs_package', 0):.2f}x"}
        accuracy, seconds = 100 * found["accuracy_mean"], found["seconds_mean"]
        if found["n"] > 1:
            spread = f" ± {100 * found['accuracy_sd']:.2f}", f" ± {found['seconds_sd']:.1f}"
        else:
            spread = "", ""
        yield name, side, str(found["n"]), f"{accuracy:.2f}{spread[0]}", f"{seconds:.1f}{spread[1]}", ratio[side]


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[float], None]]]:
    """Show what is trained and how far it is; yields a function from a label to one that takes the share done."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    console = Console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=1.0)

        def begin(label: str) -> Callable[[float], None]:
            if not console.is_terminal:
                print(label, flush=True)
            progress.reset(task, description=label)
            return lambda done: progress.update(task, completed=done)

        yield begin


if __name__ == "__main__":
    stage.command(main)
