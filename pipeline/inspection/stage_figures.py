"""Figures of the inspect stage: robustness to corruptions and shifts, activity of activation layers."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from pipeline.data.dataset import Images
from pipeline.inspection import corruptions, shifts, units
from pipeline.inspection.corruptions import CORRUPTIONS
from pipeline.models.common import activity
from pipeline.plotting import BLUE, COLOURS, GREY, ORANGE, headline, saved

MARKERS = ("o", "s", "^", "D", "v")
MOST_NUMBERS = 9
"""Shifts along an axis up to which the number is written into each field of a heat map."""

FILL_NAMES = {"reflect": "edges filled by reflection", "black": "edges filled with black"}


def corruption_curves(
    path: Path, rows: Sequence[corruptions.Row], clean: float, image: Images, examples: Images
) -> None:
    """Draw accuracy against severity, a line for each corruption, beside an image that shows what severities mean.

    Args:
        clean: accuracy on the same images as they are.
        image: (H, W, 3) uint8.
        examples: that image under every corruption, as `corruptions.examples` returns it.
    """
    severities = examples.shape[1]
    mean = corruptions.summary(rows)["inspect/corruption_accuracy"]
    with saved(path, (10.5, 4.6)) as figure:
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.1))[0]
        axes = left.subplots()
        for (name, colour), marker in zip(_colours().items(), MARKERS, strict=True):
            values = [clean, *(row["accuracy"] for row in rows if row["corruption"] == name)]
            axes.plot(range(severities + 1), values, color=colour, marker=marker, ms=5, label=name)
        axes.axhline(clean, color=GREY, ls="--", lw=1)
        axes.set(xlabel="severity (0: the image as it is)", ylabel="accuracy", ylim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="lower left", ncols=2)
        _example_grid(right, image, examples)
        headline(figure, f"Corrupted images: {mean:.1%} are right on average (as they are: {clean:.1%})")


def shift_maps(path: Path, rows: Sequence[shifts.Row], clean: float) -> None:
    """Draw accuracy and consistency for every shift as heat maps, one row for each way to fill the edges.

    Args:
        rows: as `shifts.measure` returns them, in that order.
        clean: accuracy on the same images where they are.
    """
    along = sorted({row["dx"] for row in rows})
    means = shifts.summary(rows)
    lowest = min(min(row["accuracy"], row["consistency"]) for row in rows)
    names = {"accuracy": "Accuracy", "consistency": "Consistency"}
    with saved(path, (8.4, 8)) as figure:
        panels = figure.subplots(len(shifts.FILLS), len(names), sharex=True, sharey=True)
        for panel, (fill, name) in zip(panels.flat, product(shifts.FILLS, names), strict=True):
            values = np.array([row[name] for row in rows if row["fill"] == fill]).reshape(len(along), len(along))
            image = _heat_map(panel, values, np.floor(lowest * 10) / 10)
            panel.set_title(f"{names[name]}: {means[f'inspect/shift_{name}/{fill}']:.1%} on average")
            panel.set_xticks(range(len(along)), along)
            panel.set_yticks(range(len(along)), along)
        for panel in panels[-1]:
            panel.set_xlabel("moved to the right by px (negative: left)")
        for panel, fill in zip(panels[:, 0], shifts.FILLS, strict=True):
            panel.set_ylabel(f"{FILL_NAMES[fill]}\nmoved down by px (negative: up)")
        figure.colorbar(image, ax=panels, label="share of the images", shrink=0.5, format=PercentFormatter(1))
        headline(
            figure,
            f"Moved by up to {along[-1]} px, {means['inspect/shift_accuracy']:.1%} of the images are right on average "
            f"(unmoved {clean:.1%}), {means['inspect/shift_consistency']:.1%} keep their prediction",
        )


def layer_activity(path: Path, rows: Sequence[units.Row], images: int) -> None:
    """Draw the mean output of every activation layer, and the share of its units that are dead or outputs saturated.

    In a network with activations of both kinds it is dead units, and no bar for layers that cannot have any.

    Args:
        images: number of images.
    """
    names = [f"{row['layer']} ({row['units']})" for row in rows]
    measure = "dead" if any(row["dead"] != "" for row in rows) else "saturated"
    shares = [math.nan if row[measure] == "" else row[measure] for row in rows]
    kinds = ", ".join(dict.fromkeys(row["activation"] for row in rows))
    explanation = (
        f"Units that none of {images:,} images activates"
        if measure == "dead"
        else f"Outputs within {activity.MARGIN} of an end of the range"
    )
    with saved(path, (9, min(1.6 + 0.27 * len(rows), 10))) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(names, [row["mean"] for row in rows], color=BLUE)
        left.axvline(0, color=GREY, lw=1)
        left.set(title=f"Mean output ({kinds})", xlabel="mean output", ylabel="layer (units)")
        text_size = min(8, 600 / len(rows))
        left.tick_params(axis="y", labelsize=text_size)
        bars = right.barh(names, shares, color=ORANGE)
        right.bar_label(
            bars, ["" if math.isnan(share) else f"{share:.1%}" for share in shares], padding=3, fontsize=text_size
        )
        right.set(title=explanation, xlabel=f"share of the {'units' if measure == 'dead' else 'outputs'}")
        left.set_ylim(len(rows) - 0.4, -0.6)  # the first layer on top
        right.set_xlim(0, max(0.1, 1.2 * np.nanmax(shares)))
        right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        headline(figure, _verdict(rows, measure))


def _verdict(rows: Sequence[units.Row], measure: str) -> str:
    total = units.summary(rows)[f"inspect/{measure}_share"]
    if measure == "dead":
        count = sum(row["units"] for row in rows if row["dead"] != "")
        return f"{round(total * count) or 'None'} of {count:,} units {'is' if total == 0 else 'are'} dead"
    return f"{total:.1%} of the outputs are saturated on average over layers"


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


def _example_grid(figure: SubFigure, image: Images, examples: Images) -> None:
    """Draw the image, then each severity; a row for each corruption, strengths below."""
    severities = examples.shape[1]
    panels = figure.subplots(len(examples), severities + 1)
    for row, (name, corruption) in enumerate(CORRUPTIONS.items()):
        for column, shown in enumerate((image, *examples[row])):
            axes = panels[row, column]
            axes.imshow(shown, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(f"{column}", loc="center", fontsize=8)
            axes.set_xlabel(f"{corruption.strengths[column - 1]:g}" if column else "", fontsize=7, labelpad=1)
        label = f"{name}\n{corruption.measure}"
        panels[row, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, color=_colours()[name])
