"""Figures of a network's first layer: its filters, and their outputs compared with those of edge filters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from pipeline.inspection.convolution import EDGE_FILTERS, convolve, grey
from pipeline.inspection.convolution_figures import SIGNED
from pipeline.inspection.filters import Chance, FirstLayer, Match, Selectivity, p_value
from pipeline.plotting import BLUE, ORANGE, PALE, headline, saved

MOST_FILTERS, COLUMNS = 64, 8
SHOWN_EDGES = ("Sobel vertical", "Sobel horizontal", "Prewitt vertical", "Prewitt horizontal")


def edges(path: Path, image: npt.NDArray[np.uint8], layer: FirstLayer, matches: Sequence[Match]) -> None:
    """Draw the outputs of edge filters for an image, and below those of the most similar first-layer filters.

    Args:
        image: (H, W, 3) uint8.
        matches: as `filters.nearest` returns them.
    """
    luminance = grey(image)
    chosen = [match for match in matches if match.edge in SHOWN_EDGES]
    answers = layer.answers(image)
    with saved(path, (8.6, 7.2)) as figure:
        panels = figure.subplots(4, 1 + len(chosen), height_ratios=(0.5, 1.5, 0.5, 1.5))
        for panel in panels.flat:
            panel.axis("off")
        panels[1, 0].imshow(image, interpolation="nearest")
        panels[1, 0].set_title("the image", loc="center", fontsize=9)
        panels[3, 0].imshow(luminance, cmap="gray", vmin=0, vmax=255)
        panels[3, 0].set_title("its brightness,\ninput of edge filters", loc="center", fontsize=9)
        for column, match in enumerate(chosen, start=1):
            kernel = EDGE_FILTERS[match.edge]
            sign = -1 if match.cosine < 0 else 1
            learned = layer.filters[match.filter] * sign
            _signed(panels[0, column], kernel)
            panels[0, column].set_title(match.edge, loc="center", fontsize=9)
            _signed(panels[1, column], convolve(luminance, kernel[None])[0])
            panels[2, column].imshow(as_colours(learned), interpolation="nearest")
            turned = ", sign turned" if sign < 0 else ""
            text = f"filter {match.filter}{turned}\ncosine {abs(match.cosine):.2f}"
            panels[2, column].set_title(text, loc="center", fontsize=9)
            _signed(panels[3, column], answers[match.filter] * sign)
        best = max(abs(match.cosine) for match in chosen)
        headline(
            figure,
            f"Edge filters and their output for an image; below, the most similar {_kind(layer)} filters\n"
            f"(largest cosine {best:.2f}). Orange: brighter to the right or below; purple: darker.\n"
            "Each picture has its own scale.",
        )


def first_layer(path: Path, layer: FirstLayer, selectivity: Selectivity, random: Chance) -> None:
    """Draw a first layer's filters, the most selective first, and a histogram of selectivity beside random filters.

    Args:
        selectivity: of the layer's filters.
        random: of layers of the same shape, as `filters.chance` returns it.
    """
    order = np.argsort(-selectivity.index, kind="stable")[:MOST_FILTERS]
    rows = -(-len(order) // COLUMNS)
    mean, p = selectivity.index.mean(), p_value(float(selectivity.index.mean()), random.index.mean(1))
    with saved(path, (10, max(3.6, 0.74 * rows + 0.8))) as figure:
        grid = figure.add_gridspec(1, 2, width_ratios=(1.35, 1))
        _filters(figure.add_subfigure(grid[0]), layer, selectivity, order)
        _histogram(figure.add_subplot(grid[1]), selectivity, random)
        side, count = layer.filters.shape[-1], len(layer.filters)
        shown = f"{len(order)} most selective of the {count}" if len(order) < count else str(count)
        verdict = "more" if p < 0.05 else "not significantly more"
        headline(
            figure,
            f"The {shown} {_kind(layer)} first-layer filters of {side} x {side} px, each with its orientation "
            f"selectivity.\nThey are {verdict} selective than random filters: mean {mean:.2f}, random "
            f"{random.index.mean():.2f} (p = {p:.2g}).",
        )


def as_colours(kernel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a (3, k, k) filter as a (k, k, 3) picture, 0..1: mid grey is 0, the largest weight is full colour."""
    return 0.5 + kernel.transpose(1, 2, 0) / (2 * np.abs(kernel).max() or 1.0)


def _kind(layer: FirstLayer) -> str:
    return "learned" if layer.learned else "computed, not learned,"


def _filters(figure: SubFigure, layer: FirstLayer, selectivity: Selectivity, order: npt.NDArray[np.int64]) -> None:
    rows = -(-len(order) // COLUMNS)
    panels = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, number in zip(panels.flat, order, strict=False):
        axes.imshow(as_colours(layer.filters[number]), interpolation="nearest")
        axes.set_title(f"{selectivity.index[number]:.2f}", loc="center", fontsize=8, pad=2)


def _histogram(axes: Axes, selectivity: Selectivity, random: Chance) -> None:
    bins = np.linspace(0, 1, 21)
    for values, options in (
        (random.index.ravel(), {"color": PALE, "label": "random filters"}),
        (selectivity.index, {"color": ORANGE, "histtype": "step", "lw": 2, "label": "these filters"}),
    ):
        axes.hist(values, bins.tolist(), weights=np.full(len(values), 100 / len(values)), **options)
    axes.axvline(random.index.mean(), color=BLUE, ls="--", lw=1, label="means")
    axes.axvline(selectivity.index.mean(), color=ORANGE, ls="--", lw=1)
    axes.set(
        xlabel="orientation selectivity (1: one orientation only, 0: all alike)", ylabel="filters, %", xlim=(0, 1)
    )
    axes.legend()


def _signed(axes: Axes, values: npt.NDArray[np.float32]) -> None:
    limit = float(np.abs(values).max()) or 1.0
    axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
