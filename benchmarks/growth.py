"""What time and memory trainings of several sizes take, and the exponents of their growth."""

import multiprocessing
from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import BaseModel

from benchmarks import measuring, roofline
from benchmarks.roofline import Floor, Peaks
from benchmarks.trainings import Case, Quantity, Training
from pipeline.hardware import device
from pipeline.models.common import numerics


class Growth(BaseModel):
    """How long trainings of several sizes took.

    Attributes:
        label, expected: of the quantity.
        sizes: S of them, ascending.
        seconds: S lists of R repeats, without validation and preparation.
        medians: of those.
        floors: S least times in seconds.
        exponent: e of the power law seconds = c * size^e that fits the medians.
        floor_exponent: the same of the floors.
    """

    label: str
    expected: tuple[float, float]
    sizes: list[float]
    seconds: list[list[float]]
    medians: list[float]
    floors: list[float]
    exponent: float
    floor_exponent: float


class Memory(BaseModel):
    """The most memory that trainings of several sizes had in use, each in a process of its own.

    Attributes:
        label: of the quantity.
        sizes: S of them, ascending.
        peak_mib: of the GPU's memory, or of the process's if there is none.
        start_mib: the peak just before the training: the libraries.
        slope_mib, intercept_mib: of the line peak = intercept + slope * size that fits best.
    """

    label: str
    sizes: list[float]
    peak_mib: list[float]
    start_mib: list[float]
    slope_mib: float
    intercept_mib: float


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return e of the power law value = c * size^e: the slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def floors(case: Case, steps: int, place: torch.device, peaks: Peaks) -> list[Floor]:
    """Return the floors of the mean step of a training that has `steps` of them."""
    return roofline.step_floors(
        case.network(place),
        case.params.optimizer,
        side=case.train.resolutions[0],
        batch=case.images * case.train.epochs / steps,
        precision=numerics.choose_precision(case.train.precision, place),
        peaks=peaks,
    )


def trainings(quantity: Quantity, repeats: int) -> int:
    """Return how many trainings `measure` does: each size once more than is timed."""
    return len(quantity.cases) * (repeats + 1)


def measure(quantity: Quantity, place: torch.device, peaks: Peaks, repeats: int, tick: Callable[[], None]) -> Growth:
    """Train at all sizes turn by turn.

    Args:
        tick: called after each training; it is timed with it, so it must be quick.
    """
    sizes = list(quantity.cases)
    made = [Training(case, place) for case in quantity.cases.values()]
    for one in made:
        one.prepare()

    def ticking(one: Training) -> Callable[[], None]:
        def run() -> None:
            one()
            tick()

        return run

    sides = {str(size): ticking(one) for size, one in zip(sizes, made, strict=True)}
    timings = list(measuring.interleaved(sides, repeats, place).values())
    medians = [timing.median for timing in timings]
    least = [
        one.steps * roofline.step_seconds(floors(case, one.steps, place, peaks))
        for case, one in zip(quantity.cases.values(), made, strict=True)
    ]
    return Growth(
        label=quantity.label,
        expected=quantity.expected,
        sizes=sizes,
        seconds=[timing.seconds for timing in timings],
        medians=medians,
        floors=least,
        exponent=exponent(sizes, medians),
        floor_exponent=exponent(sizes, least),
    )


def measure_memory(quantity: Quantity, place: torch.device, tick: Callable[[], None]) -> Memory:
    """Train a few batches at each size, each in a fresh process, as a process's peak never falls.

    The processes are forked from a server that has only imported this module: one that the present process started
    itself would begin with the present one's peak.

    Args:
        tick: called after each training.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    sizes, starts, peaks = list(quantity.cases), [], []
    with context.Pool(1, maxtasksperchild=1) as pool:
        tasks = [(case, str(place)) for case in quantity.cases.values()]
        for start, peak in pool.imap(_memory, tasks, chunksize=1):
            starts.append(start)
            peaks.append(peak)
            tick()
    slope, intercept = map(float, np.polyfit(sizes, peaks, 1))
    return Memory(
        label=quantity.label,
        sizes=sizes,
        peak_mib=peaks,
        start_mib=starts,
        slope_mib=slope,
        intercept_mib=intercept,
    )


def _memory(task: tuple[Case, str]) -> tuple[float, float]:
    """Return this process's peak in MiB before and after a training of whole batches."""
    case, place = task[0], torch.device(task[1])
    start = device.peak_memory_mib(place)
    numerics.prepare(place, deterministic=case.train.deterministic)
    steps = 2 if place.type == "cpu" else 8  # 2: the optimiser's state is there, too; 8: the step is recorded
    train = case.train.model_copy(update={"epochs": steps})
    Training(Case(case.params.model_copy(update={"train": train}), images=train.batch_size), place)()
    return start, device.peak_memory_mib(place)
