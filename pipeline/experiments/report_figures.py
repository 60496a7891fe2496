"""Figures of a comparison as SVG or PNG, to embed in a page."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator

from pipeline import pages
from pipeline.experiments import statistics
from pipeline.plotting import COLOURS, GREY, styled

DASHES = ("-", "--", ":")
MOST_LINES = len(COLOURS) * len(DASHES)
SIZE = (4.6, 3.4)


def accuracy_against(
    names: Sequence[str],
    cost: Sequence[float],
    accuracy: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    label: str,
) -> str:
    """Draw validation accuracy (fractions, with 95 % intervals) against a cost, and the Pareto front; return SVG."""
    gain = np.asarray(accuracy) * 100
    front = sorted(
        point
        for point, on in zip(zip(cost, gain, strict=True), statistics.pareto(cost, list(gain)), strict=True)
        if on
    )
    with styled(SIZE) as figure:
        axes = figure.subplots()
        axes.step(*zip(*front, strict=True), where="post", color=GREY, lw=1, label="Pareto front", zorder=1)
        for number, (x, y) in enumerate(zip(cost, gain, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, y, "o", color=colour, ms=6)
            if interval := intervals[number]:
                axes.vlines(x, 100 * interval[0], 100 * interval[1], color=colour, lw=1.2)
        if max(cost) > 30 * min(cost) > 0:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.margins(x=0.18, y=0.12)
        axes.set(
            xlabel=label,
            ylabel="validation accuracy, % (95 % interval)",
            title=f"Accuracy against {label.split(',')[0]}",
        )
        axes.legend(loc="best", fontsize=8)
        figure.draw_without_rendering()  # fixes the positions of the points
        _name_points(axes, names[:MOST_LINES], cost, gain, figure.dpi)
        return svg(figure)


def _name_points(axes: Axes, names: Sequence[str], x: Sequence[float], y: npt.NDArray[np.float64], dpi: float) -> None:
    """Label each point above to the right, or below if another label is near."""
    taken: list[npt.NDArray[np.float64]] = []
    for number in sorted(range(len(names)), key=lambda number: -y[number]):
        position = axes.transData.transform((x[number], y[number])) / dpi
        crowded = any(abs(position[0] - other[0]) < 0.9 and abs(position[1] - other[1]) < 0.16 for other in taken)
        taken.append(position)
        axes.annotate(
            names[number],
            (x[number], y[number]),
            (5, -12 if crowded else 5),
            textcoords="offset points",
            fontsize=8,
            color=COLOURS[number % len(COLOURS)],
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def forest(
    names: Sequence[str],
    seeds: Sequence[Sequence[float]],
    differences: Sequence[tuple[float, float, float] | None],
    verdicts: Sequence[str],
    margin: float,
) -> str:
    """Draw the test accuracy of every seed, and the difference of each row to the baseline; return SVG.

    Args:
        names: of the rows, the first at the top.
        seeds: accuracies of each row's seeds, as fractions.
        differences: value and limits of the 95 % interval, as fractions; None for the baseline and uncompared rows.
        verdicts: of the rows.
        margin: difference up to which rows are equivalent, as a fraction.
    """
    with styled((9.4, 1.2 + 0.3 * len(names))) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for number, values in enumerate(seeds):
            left.plot(np.asarray(values) * 100, [number] * len(values), "o", color=COLOURS[0], ms=5, alpha=0.6)
            left.plot(np.mean(values) * 100, number, "|", color="black", ms=12)
        right.axvline(0, color=GREY, lw=1)
        right.axvspan(-100 * margin, 100 * margin, color=GREY, alpha=0.15, lw=0, label=f"± {margin * 100:g} points")
        for number, (found, verdict) in enumerate(zip(differences, verdicts, strict=True)):
            if found:
                value, low, high = (100 * limit for limit in found)
                right.hlines(number, low, high, color=COLOURS[1], lw=2)
                right.plot(value, number, "o", color=COLOURS[1], ms=6)
            right.annotate(
                verdict,
                (1.02, number),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
                annotation_clip=False,
            )
        left.set_yticks(range(len(names)), names)
        left.set(ylim=(len(names) - 0.5, -0.5), xlabel="test accuracy, % (●: seed, |: mean)")
        right.set(xlabel="difference to the baseline, points (95 % interval)")
        right.legend(loc="best", fontsize=8)
        return svg(figure)


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], metric: str, title: str, unit: str) -> str:
    """Draw a metric by epoch for several trainings; return SVG."""
    with styled(SIZE) as figure:
        axes = figure.subplots()
        for number, (name, rows) in enumerate(list(histories.items())[:MOST_LINES]):
            factor = 100 if unit == "%" else 1
            axes.plot(
                [row["epoch"] for row in rows],
                [row[metric] * factor for row in rows],
                color=COLOURS[number % len(COLOURS)],
                ls=DASHES[number // len(COLOURS)],
                marker="o",
                ms=3,
                label=name,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(xlabel="epoch", ylabel=f"{metric}, {unit}", title=title)
        axes.legend(fontsize=8, ncols=2 if len(histories) > 6 else 1)
        return svg(figure)


def confusion_difference(
    baseline: npt.NDArray[np.int64], candidate: npt.NDArray[np.int64], classes: Sequence[str]
) -> str:
    """Draw the difference of the (C, C) confusion matrices, candidate minus baseline; return SVG.

    Colours mean better and worse: on the diagonal more is better, elsewhere less.
    """
    change = candidate - baseline
    better = np.where(np.eye(len(classes), dtype=bool), change, -change)
    limit = max(1, int(np.abs(better).max()))
    with styled((5.6, 5.0)) as figure:
        axes = figure.subplots()
        image = axes.imshow(better, cmap="RdBu", vmin=-limit, vmax=limit)
        for row, column in np.ndindex(*change.shape):
            if change[row, column]:
                colour = "white" if abs(better[row, column]) > 0.6 * limit else "black"
                text = f"{change[row, column]:+d}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="predicted class", ylabel="true class", title="Difference in images to the baseline")
        axes.grid(visible=False)
        figure.colorbar(image, label="worse  ←  images  →  better", shrink=0.8)
        return svg(figure)


def disagreements(images: npt.NDArray[np.uint8], captions: Sequence[str], columns: int = 6) -> str:
    """Draw (N, H, W, 3) uint8 images with captions; return a PNG as a data URI."""
    rows = max(1, -(-len(images) // columns))
    with styled((columns * 1.25, rows * 1.62)) as figure:
        panels: npt.NDArray[np.object_] = figure.subplots(rows, columns, squeeze=False)
        for number, panel in enumerate(panels.flat):
            assert isinstance(panel, Axes)
            panel.axis("off")
            if number < len(images):
                panel.imshow(images[number], interpolation="nearest")
                panel.set_title(captions[number], fontsize=7, loc="center")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return pages.data_uri(buffer.getvalue())


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element with text kept as text, byte-identical for the same content."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "comparison"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
