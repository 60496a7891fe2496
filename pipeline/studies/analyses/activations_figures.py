"""Figures of the study of activations: training accuracy over epochs, and what layers do."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.plotting import COLOURS, GREY, saved
from pipeline.studies import convergence
from pipeline.studies.analysis import MoreThan
from pipeline.studies.charts import wrapped_headline

if TYPE_CHECKING:
    from pipeline.studies.analyses.activations import Chosen

    Results = Mapping[tuple[str, str], Chosen]

NAMES = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}
NORMS = {"none": "without batch norm", "batch": "with batch norm"}
LOOKS = {"relu": (COLOURS[0], "o"), "tanh": (COLOURS[1], "s"), "sigmoid": (COLOURS[2], "^")}


def draw_curves(path: Path, chosen: "Results", target: float, title: str) -> None:
    """Draw training accuracy over epochs for each activation, and where it is at the target."""
    with saved(path, (8.8, 4.1)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (norm, words) in zip(panels, NORMS.items(), strict=True):
            for activation, name in NAMES.items():
                one = chosen[activation, norm]
                told = f", lr {one.lr:g}: {one.epochs:.1f} epochs" if one.histories else ": diverged"
                _curve(axes, one, activation, name + told)
                if one.histories and not isinstance(one.epochs, MoreThan):
                    axes.plot(one.epochs, 100 * target, LOOKS[activation][1], color=LOOKS[activation][0], ms=6)
            axes.set(title=words[0].upper() + words[1:], xlabel="epochs trained", ylim=(0, 100))
            axes.axhline(100 * target, color=GREY, ls="--", lw=1, zorder=1, label=f"target, {target:.0%}")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)
        panels[0].set_ylabel("training accuracy, %")
        wrapped_headline(figure, title)


def draw_layers(path: Path, chosen: "Results", title: str) -> None:
    """Draw gradients by layer before training, the first layer's over epochs, saturated or dead shares and means."""
    with saved(path, (11, 5)) as figure:
        grid = figure.subplots(2, 4, sharex="col", sharey="col")
        for row, (norm, words) in zip(grid, NORMS.items(), strict=True):
            for activation, name in NAMES.items():
                one, look = chosen[activation, norm], _look(activation)
                before = one.by_layer("gradient_norm", 0)
                row[0].plot(range(1, len(before) + 1), _positive(before), **look, label=name)
                row[1].plot(_positive(_first_gradients(one)), **look)
                column = "dead" if activation == "relu" else "saturated"
                row[2].plot([100 * share for share in one.by_epoch(column)], **look)
                row[3].plot(one.by_epoch("mean"), **look)
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


def _curve(axes: Axes, one: "Chosen", activation: str, label: str) -> None:
    """Draw the mean over seeds and, where there are several, each of them."""
    colour = LOOKS[activation][0]
    courses = [convergence.points(history) for history in one.histories]
    if len(courses) > 1:
        for epochs, accuracies in courses:
            axes.plot(epochs, [100 * accuracy for accuracy in accuracies], color=colour, lw=0.6, alpha=0.5)
    mean = 100 * np.mean([accuracies for _, accuracies in courses], axis=0) if courses else []
    epochs = courses[0][0] if courses else []
    axes.plot(epochs, mean, color=colour, lw=1.6, marker=LOOKS[activation][1], ms=3, label=label)


def _first_gradients(one: "Chosen") -> list[float]:
    """Return the norm of the first layer's gradient before training and after each epoch."""
    if one.layers is None:
        return []
    epochs = range(int(one.layers["epoch"].max()) + 1)
    return [one.by_layer("gradient_norm", epoch)[0] for epoch in epochs]


def _positive(values: list[float]) -> list[float]:
    """Return what a logarithmic axis can show; the rest leaves gaps."""
    return [value if value > 0 else np.nan for value in values]


def _look(activation: str) -> dict[str, Any]:
    colour, marker = LOOKS[activation]
    return {"color": colour, "marker": marker, "ms": 3.5, "lw": 1.3, "markevery": 0.1}
