"""Style of all figures: a colour-blind safe palette, and helpers to draw and save figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline import files

# Okabe & Ito's palette: distinct for all common kinds of colour vision, and by lightness in print; without its yellow,
# which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, ORANGE = COLOURS[:2]
GREY = "#555555"
PALE = "#9CC9E3"  # a tint of BLUE
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 120,
}


def headline(figure: Figure, text: str) -> None:
    """Set the title of a figure."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=10)


def tiled(images: npt.NDArray[np.uint8], shape: tuple[int, int], *, gap: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return images tiled into one, row by row, with white gaps and white for missing images.

    Args:
        images: (N, H, W, 3) uint8, N up to rows * columns.
        shape: rows and columns.
        gap: pixels between them, across and down.
    """
    (rows, columns), (height, width) = shape, images.shape[1:3]
    assert len(images) <= rows * columns
    down, across = height + gap[1], width + gap[0]
    canvas = np.full((rows * down - gap[1], columns * across - gap[0], 3), 255, np.uint8)
    for image, (row, column) in zip(images, np.ndindex(shape), strict=False):
        top, left = row * down, column * across
        canvas[top : top + height, left : left + width] = image
    return canvas


def tile(
    axes: Axes, images: npt.NDArray[np.uint8], shape: tuple[int, int], *, gap: tuple[int, int]
) -> tuple[list[float], list[float]]:
    """Draw a grid of (N, H, W, 3) images as one image, ten times as fast as one axes per image.

    Returns:
        The centres of the columns and of the rows, in data coordinates of the axes.
    """
    axes.imshow(tiled(images, shape, gap=gap), interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    (rows, columns), (height, width) = shape, images.shape[1:3]
    return (
        [column * (width + gap[0]) + (width - 1) / 2 for column in range(columns)],
        [row * (height + gap[1]) + (height - 1) / 2 for row in range(rows)],
    )


@contextmanager
def saved(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Yield a figure and save it as a PNG, byte-identical for the same content."""
    with styled(size) as figure:
        yield figure
        with files.atomic(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


@contextmanager
def styled(size: tuple[float, float]) -> Iterator[Figure]:
    """Yield a figure of (width, height) inches in the project's style, independent of the user's matplotlibrc."""
    with style.context(["default", STYLE]):
        yield Figure(figsize=size, layout="constrained")
