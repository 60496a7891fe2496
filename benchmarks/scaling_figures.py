"""The pictures of `benchmarks.scaling`: growth of time and memory, and the layers of a step."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.axes import plain_ticks
from benchmarks.growth import Growth, Memory
from benchmarks.roofline import Floor, Step
from pipeline.plotting import BLUE, GREY, ORANGE, PALE, saved


def growth(path: Path, growths: Mapping[str, Growth], memory: Mapping[str, Memory], machine: str) -> None:
    """Draw seconds of training, and its peak memory, against what they grow with.

    Args:
        growths, memory: by quantity, up to five of the one.
        machine: what it was measured on, for the title.
    """
    with saved(path, (10.5, 6.4)) as figure:
        panels = figure.subplots(2, 3).flat
        drawn: list[Axes] = []
        for name, one in growths.items():
            axes = next(panels)
            if drawn:
                axes.sharey(drawn[0])  # on one scale, slopes and levels can be compared
            _growth(axes, name, one)
            drawn.append(axes)
        _memory(next(panels), memory)
        for axes in panels:
            axes.axis("off")
        figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        figure.suptitle(
            f"What a training costs against what it grows with ({machine}); seconds on logarithmic axes",
            x=0.01,
            ha="left",
            fontsize=11,
        )


def _growth(axes: Axes, name: str, one: Growth) -> None:
    repeats = [(size, value) for size, values in zip(one.sizes, one.seconds, strict=True) for value in values]
    axes.plot(*zip(*repeats, strict=True), "o", color=PALE, ms=6, label="every repeat")
    axes.plot(one.sizes, one.medians, color=BLUE, marker="o", ms=3, label="median")
    level = np.exp(np.mean(np.log(one.medians) - np.log(one.floors)))
    label = "predicted growth: as of the least time that the machine's best rates allow"
    axes.plot(one.sizes, level * np.array(one.floors), color=ORANGE, ls="--", label=label)
    low, high = one.expected
    theory = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    axes.set_title(
        f"Twice the {name}: {2**one.exponent:.2f} times the seconds\n"
        f"exponent {one.exponent:.2f}; predicted {one.floor_exponent:.2f}; in theory {theory}",
        fontsize=9,
    )
    axes.set(xlabel=one.label, ylabel="seconds of training")
    _logarithmic(axes, one.sizes)


def _memory(axes: Axes, memory: Mapping[str, Memory]) -> None:
    """Draw peak memory against the size as a multiple of the smallest, and the lines that fit."""
    for (name, one), colour, marker in zip(memory.items(), (BLUE, ORANGE), ("o", "s"), strict=True):
        multiples = np.array(one.sizes) / one.sizes[0]
        text = f"{name} {one.sizes[0]:g} to {one.sizes[-1]:g}: {one.slope_mib:.3g} MiB for {name} + 1"
        axes.plot(multiples, one.peak_mib, color=colour, marker=marker, ms=4, ls="", label=text)
        fitted = one.intercept_mib + one.slope_mib * np.array(one.sizes)
        axes.plot(multiples, fitted, color=colour, lw=1)
    axes.set_title("Peak memory of a training,\nwith the straight lines that fit", fontsize=9)
    axes.set(xlabel="size, times the smallest", ylabel="MiB", ylim=(0, None))
    axes.set_xticks(multiples)
    axes.legend(fontsize=8, loc="lower right")


def _logarithmic(axes: Axes, sizes: Sequence[float]) -> None:
    """Make both axes logarithmic, with plain numbers at the sizes and at 1, 2, 5, 10 ..."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    plain_ticks(axes.yaxis)


def layers(path: Path, floors: Sequence[Floor], step: Step, machine: str) -> None:
    """Draw each layer's operations and least time in one training step, in the order in which they run."""
    names = [" ".join([floor.name, floor.kind, " x ".join(map(str, floor.output))]) for floor in floors]
    rows = range(len(floors))
    with saved(path, (10.5, 0.2 * len(floors) + 1.6)) as figure:
        work, least = figure.subplots(1, 2, sharey=True)
        forward = [floor.forward_gflop for floor in floors]
        work.barh(rows, forward, color=BLUE, label="forward")
        work.barh(rows, [floor.backward_gflop for floor in floors], left=forward, color=PALE, label="backward, update")
        work.set(xlabel="GFLOP", title=f"Products and convolutions: {step.gflop:.3g} GFLOP")
        for bound, colour in (("compute", GREY), ("memory", ORANGE)):
            chosen = [row for row in rows if floors[row].bound == bound]
            times = [1e3 * floors[row].seconds for row in chosen]
            least.barh(chosen, times, color=colour, label=f"least time, bound by {bound}")
        for row, floor in enumerate(floors):
            text = f"{floor.seconds / step.floor_seconds:.1%}"
            place = (1e3 * floor.seconds, row)
            least.annotate(text, place, (3, 0), textcoords="offset points", va="center", fontsize=7)
        least.set(xlabel="ms", title=f"Least time: {1e3 * step.floor_seconds:.3g} ms")
        least.margins(x=0.12)
        least.tick_params(axis="y", left=False)
        work.set_yticks(rows, names, fontsize=7)
        work.set_ylim(len(floors) - 0.4, -0.6)
        for axes in (work, least):
            axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)
        figure.suptitle(
            f"A training step of {step.images:g} images ({machine})\ntakes {1e3 * step.median:.3g} ms; at the "
            f"machine's best rates its layers would take {step.fraction_of_floor:.0%} of that",
            x=0.01,
            ha="left",
            fontsize=11,
        )
