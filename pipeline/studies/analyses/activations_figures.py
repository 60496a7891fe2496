"""Figures of the study of activations: training accuracy over epochs; gradients and outputs of layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.plotting import COLOURS, GREY, saved
from pipeline.studies.charts import wrapped_headline

NAMES = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}
NORMS = {"none": "without batch norm", "batch": "with batch norm"}
LOOKS = {"relu": (COLOURS[0], "o"), "tanh": (COLOURS[1], "s"), "sigmoid": (COLOURS[2], "^")}

Key = tuple[str, str]
"""An activation and a norm, as in `NAMES` and `NORMS`."""


@dataclass(frozen=True)
class Course:
    """Training accuracy of one activation and norm.

    Attributes:
        label: for the legend.
        seeds: epochs trained and training accuracies as fractions, for each seed.
        reached: mean number of epochs to the target; None if a seed did not reach it.
    """

    label: str
    seeds: Sequence[tuple[Sequence[float], Sequence[float]]]
    reached: float | None


@dataclass(frozen=True)
class Layers:
    """Gradients and outputs of the layers of one activation and norm, means over seeds.

    Attributes:
        gradients: norm of the gradient before training, by layer with weights.
        first_gradient: norm of the first layer's gradient before training and after each epoch.
        inactive: share of saturated outputs, of ReLU that of dead units, before training and after each epoch.
        means: mean output before training and after each epoch.
    """

    gradients: Sequence[float]
    first_gradient: Sequence[float]
    inactive: Sequence[float]
    means: Sequence[float]


def draw_curves(path: Path, courses: Mapping[Key, Course], target: float, title: str) -> None:
    """Draw training accuracy over epochs for each activation, and mark where it reaches the target, a fraction."""
    with saved(path, (8.8, 4.1)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (norm, words) in zip(panels, NORMS.items(), strict=True):
            for activation in NAMES:
                course, (colour, marker) = courses[activation, norm], LOOKS[activation]
                _curve(axes, course, colour, marker)
                if course.reached is not None:
                    axes.plot(course.reached, 100 * target, marker, color=colour, ms=6)
            axes.set(title=words[0].upper() + words[1:], xlabel="epochs trained", ylim=(0, 100))
            axes.axhline(100 * target, color=GREY, ls="--", lw=1, zorder=1, label=f"target, {target:.0%}")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)
        panels[0].set_ylabel("training accuracy, %")
        wrapped_headline(figure, title)


def draw_layers(path: Path, layers: Mapping[Key, Layers], title: str) -> None:
    """Draw gradients by layer before training, the first layer's over epochs, saturated or dead shares and means."""
    with saved(path, (11, 5)) as figure:
        grid = figure.subplots(2, 4, sharex="col", sharey="col")
        for row, (norm, words) in zip(grid, NORMS.items(), strict=True):
            for activation, name in NAMES.items():
                one, look = layers[activation, norm], _look(activation)
                row[0].plot(range(1, len(one.gradients) + 1), _positive(one.gradients), **look, label=name)
                row[1].plot(_positive(one.first_gradient), **look)
                row[2].plot([100 * share for share in one.inactive], **look)
                row[3].plot(one.means, **look)
            row[0].set_ylabel(f"{words}\nnorm of gradient", fontsize=8.5)
            for axes in row[:2]:
                axes.set_yscale("log")
            for axes, unit in zip(row[1:], ("norm of gradient", "share, %", "mean"), strict=True):
                axes.set_ylabel(unit)
            row[3].axhline(0, color=GREY, lw=0.8)
        titles = (
            "Gradient by layer,\nbefore training",
            "Gradient of the\nfirst layer",
            "Saturated outputs\n(ReLU: dead units)",
            "Mean output\n",
        )
        labels = ("layer with weights", "epochs trained", "epochs trained", "epochs trained")
        for top, bottom, words, label in zip(*grid, titles, labels, strict=True):
            top.set_title(words)
            bottom.set_xlabel(label)
            bottom.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
        wrapped_headline(figure, title)


def _curve(axes: Axes, course: Course, colour: str, marker: str) -> None:
    """Draw the mean over seeds and, where there are several, each of them."""
    if len(course.seeds) > 1:
        for epochs, accuracies in course.seeds:
            axes.plot(epochs, [100 * accuracy for accuracy in accuracies], color=colour, lw=0.6, alpha=0.5)
    mean = 100 * np.mean([accuracies for _, accuracies in course.seeds], axis=0) if course.seeds else []
    epochs = course.seeds[0][0] if course.seeds else []
    axes.plot(epochs, mean, color=colour, lw=1.6, marker=marker, ms=3, label=course.label)


def _positive(values: Sequence[float]) -> list[float]:
    """Replace values that a logarithmic axis cannot show by NaN."""
    return [value if value > 0 else np.nan for value in values]


def _look(activation: str) -> dict[str, Any]:
    colour, marker = LOOKS[activation]
    return {"color": colour, "marker": marker, "ms": 3.5, "lw": 1.3, "markevery": 0.1}
