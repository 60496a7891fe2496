"""Figures of robustness: accuracy on corrupted images, accuracy and consistency on shifted ones."""

import textwrap
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from pipeline.data.dataset import Images
from pipeline.evaluation import corruptions, shifts
from pipeline.evaluation.corruptions import CORRUPTIONS
from pipeline.plotting import COLOURS, GREY, headline, saved, tile

MARKERS = ("o", "s", "^", "D", "v")
MOST_NUMBERS = 9
"""Shifts along an axis up to which the number is written into each field of a heat map."""

FILL_NAMES = {"reflect": "edges filled by reflection", "black": "edges filled with black"}


def corruption_curves(
    path: Path, rows: Sequence[corruptions.Row], clean: float, image: Images, examples: Images
) -> None:
    """Draw accuracy by severity, a line for each corruption, beside a test image under every corruption.

    Args:
        clean: accuracy on the same images as they are.
        image: (H, W, 3) uint8.
        examples: that image under every corruption, as `corruptions.examples` returns it.
    """
    severities = examples.shape[1]
    mean = corruptions.summary(rows)["test/corruption_accuracy"]
    with saved(path, (10.5, 4.6)) as figure:
        axes, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        for (name, colour), marker in zip(_colours().items(), MARKERS, strict=True):
            values = [clean, *(row["accuracy"] for row in rows if row["corruption"] == name)]
            axes.plot(range(severities + 1), values, color=colour, marker=marker, ms=5, label=name)
        axes.axhline(clean, color=GREY, ls="--", lw=1)
        axes.set(xlabel="severity (0: unchanged)", ylabel="accuracy", ylim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="lower left", ncols=2)
        _example_grid(right, image, examples)
        headline(figure, f"Accuracy on corrupted images: mean {mean:.1%} (unchanged images: {clean:.1%})")


def shift_maps(path: Path, rows: Sequence[shifts.Row], clean: float) -> None:
    """Draw accuracy and consistency for every shift as heat maps, one row for each way to fill the edges.

    Args:
        rows: as `shifts.measure` returns them, in that order.
        clean: accuracy on the same images without a shift.
    """
    along = sorted({row["dx"] for row in rows})
    means = shifts.summary(rows)
    lowest = min(min(row["accuracy"], row["consistency"]) for row in rows)
    names = {"accuracy": "Accuracy", "consistency": "Unchanged predictions"}
    with saved(path, (8.4, 8)) as figure:
        panels = figure.subplots(len(shifts.FILLS), len(names), sharex=True, sharey=True)
        for panel, (fill, name) in zip(panels.flat, product(shifts.FILLS, names), strict=True):
            values = np.array([row[name] for row in rows if row["fill"] == fill]).reshape(len(along), len(along))
            image = _heat_map(panel, values, np.floor(lowest * 10) / 10)
            panel.set_title(f"{names[name]}: mean {means[f'test/shift_{name}/{fill}']:.1%}")
            panel.set_xticks(range(len(along)), along)
            panel.set_yticks(range(len(along)), along)
        for panel in panels[-1]:
            panel.set_xlabel("shift to the right, px (negative: left)")
        for panel, fill in zip(panels[:, 0], shifts.FILLS, strict=True):
            panel.set_ylabel(f"{FILL_NAMES[fill]}\nshift down, px (negative: up)")
        figure.colorbar(image, ax=panels, label="share of the images", shrink=0.5, format=PercentFormatter(1))
        headline(
            figure,
            f"Images shifted by up to {along[-1]} px: mean accuracy {means['test/shift_accuracy']:.1%} (unshifted "
            f"{clean:.1%}), {means['test/shift_consistency']:.1%} of the predictions unchanged",
        )


def _colours() -> dict[str, str]:
    return dict(zip(CORRUPTIONS, COLOURS, strict=False))


def _heat_map(axes: Axes, values: npt.NDArray[np.float64], lowest: float) -> AxesImage:
    """Draw shares as colours, with the number in each cell if there is room for it."""
    image = axes.imshow(values, cmap="viridis", vmin=lowest, vmax=1)
    axes.grid(visible=False)
    if len(values) <= MOST_NUMBERS:
        for row, column in np.ndindex(*values.shape):
            colour = "black" if values[row, column] > (lowest + 1) / 2 else "white"
            text = f"{100 * values[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return image


def _example_grid(axes: Axes, image: Images, examples: Images) -> None:
    """Draw a row for each corruption: the image unchanged, then by severity, with the strength below it."""
    severities = examples.shape[1]
    rows = [shown for several in examples for shown in (image, *several)]
    lefts, tops = tile(axes, np.stack(rows), (len(examples), severities + 1), gap=(4, 12))
    side = image.shape[0]
    for (name, corruption), top in zip(CORRUPTIONS.items(), tops, strict=True):
        for left, strength in zip(lefts[1:], corruption.strengths, strict=True):
            axes.text(left, top + side / 2 + 1, f"{strength:g}", ha="center", va="top", fontsize=7)
        label = "\n".join((name, *textwrap.wrap(corruption.measure, 20)))
        axes.text(-8, top, label, ha="right", va="center", fontsize=8, color=_colours()[name])
    for column, left in enumerate(lefts):
        text = f"severity {column}" if column else "unchanged"
        axes.text(left, tops[0] - side / 2 - 4, text, ha="center", va="bottom", fontsize=8)
    axes.axis("off")
