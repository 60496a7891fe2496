"""Figures of a convolution: a filter applied to a section of an image, animated or one step."""

from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from pipeline import files, stage
from pipeline.inspection.convolution import Walk
from pipeline.plotting import ORANGE, saved, styled

SIGNED = "PuOr_r"
"""Colour map of signed numbers: purple below 0, white at 0, orange above; safe for colour-blind readers."""

SIZE = (10.2, 3.9)
STEP_MS, END_MS = 700, 3000
TIMES = "\N{MULTIPLICATION SIGN}"


def walk_step(path: Path, walk: Walk, name: str, step: int) -> None:
    """Draw one step of a convolution, counted from 0, with the part of the feature map computed by then.

    Args:
        walk: over grey levels, 0..255.
        name: of the filter, e.g. "Sobel vertical".
    """
    with saved(path, SIZE) as figure:
        panels = _Panels(figure, walk, name)
        for number in range(step + 1):
            panels.add(number)
        panels.show(step)


def walk_animation(path: Path, walk: Walk, name: str) -> None:
    """Write a convolution as an animated GIF; the same bytes for the same walk, under 1 MB up to 9 x 9 px.

    Args:
        walk, name: as for `walk_step`.
    """
    with styled(SIZE) as figure, stage.bar("drawing a convolution", walk.sums.size) as advance:
        canvas: Any = FigureCanvasAgg(figure)  # has no types
        panels = _Panels(figure, walk, name)
        for artist in panels.moving:
            artist.set_animated(True)  # left out of what is drawn here, once for all frames
        canvas.draw()
        still = canvas.copy_from_bbox(figure.bbox)
        frames = []
        for step in range(walk.sums.size):
            canvas.restore_region(still)
            for artist in panels.add(step):
                figure.draw_artist(artist)
            still = canvas.copy_from_bbox(figure.bbox)
            panels.show(step)
            for artist in panels.moving:
                figure.draw_artist(artist)
            frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
            advance(1)
    # One palette for all frames, that of the last, which has all colours: frames with their own palettes flicker.
    palette = frames[-1].quantize()
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [STEP_MS] * len(others) + [END_MS]
    with files.atomic(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)


class _Panels:
    """Section, filter, products and feature map side by side.

    Attributes:
        moving: artists that `show` updates; all others stay.
    """

    def __init__(self, figure: Figure, walk: Walk, name: str) -> None:
        self.walk = walk
        side = len(walk.kernel)
        axes: list[Axes] = list(figure.subplots(1, 4, width_ratios=(1.45, 0.8, 1.25, 1.25)))
        section, kernel, products, self.map = axes
        for panel in axes:
            panel.grid(visible=False)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(True)
        drawn = section.imshow(walk.section, cmap="gray", vmin=0, vmax=255)
        _write_all(drawn, walk.section, fontsize=7)
        drawn = _signed(kernel, walk.kernel, walk.kernel)
        _write_all(drawn, walk.kernel, fontsize=10)
        self.products = _signed(products, walk.products[0], walk.products)
        self.written = _write_all(self.products, walk.products[0], fontsize=7.5)
        self.sum = products.set_xlabel("", fontsize=12, fontweight="bold", color=ORANGE)
        self.answers = _signed(self.map, np.full_like(walk.sums, np.nan), walk.sums)
        self.frame, self.mark = (
            Rectangle((0, 0), width, width, fill=False, edgecolor=ORANGE, linewidth=3, zorder=4) for width in (side, 1)
        )
        section.add_patch(self.frame)
        self.map.add_patch(self.mark)
        self.moving: list[Artist] = [self.frame, self.products, *self.written, self.sum]
        # Lines around what is painted over again and again are drawn last.
        self.moving += [*products.spines.values(), *self.map.spines.values(), self.mark]
        height, width = walk.section.shape
        section.set_title(f"{height} {TIMES} {width} px of an image\n(grey levels 0 to 255)")
        kernel.set_title(f"filter\n{name}")
        products.set_title(f"{side * side} products\nand their sum")
        self.map.set_title("one value of\nthe feature map")

    def add(self, step: int) -> list[Artist]:
        """Write a step's sum into the feature map and return what was added."""
        place = self.walk.place(step)
        value = float(self.walk.sums[place])
        row, column = place
        colour = self.answers.to_rgba(np.array([value]))[0]
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, linewidth=0)
        return [self.map.add_patch(cell), _write(self.answers, place, value, fontsize=8)]

    def show(self, step: int) -> None:
        """Move the filter to a step."""
        row, column = self.walk.place(step)
        for mark in (self.frame, self.mark):
            mark.set_xy((column - 0.5, row - 0.5))
        products = self.walk.products[step]
        self.products.set_data(products)
        cells = zip(self.written, self.walk.patches[step].flat, self.walk.kernel.flat, products.flat, strict=True)
        for text, pixel, weight, product in cells:
            text.set_text(f"{_number(pixel)} {TIMES} {_number(weight)}\n= {_number(product)}")
            text.set_color(_ink(self.products, product))
        self.sum.set_text(_number(self.walk.sums[row, column]))


def _signed(axes: Axes, values: npt.NDArray[np.float32], extent: npt.NDArray[np.float32]) -> AxesImage:
    """Draw numbers in the colours of `SIGNED`, which reach as far as the largest of `extent`."""
    limit = float(np.abs(extent).max()) or 1.0
    return axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit)


def _write_all(drawn: AxesImage, values: npt.NDArray[np.float32], *, fontsize: float) -> list[Text]:
    rows = enumerate(values.tolist())
    return [
        _write(drawn, (row, column), value, fontsize=fontsize)
        for row, numbers in rows
        for column, value in enumerate(numbers)
    ]


def _write(drawn: AxesImage, place: tuple[int, int], value: float, *, fontsize: float) -> Text:
    row, column = place
    colour = _ink(drawn, value)
    return drawn.axes.text(column, row, _number(value), ha="center", va="center", fontsize=fontsize, color=colour)


def _number(value: SupportsFloat) -> str:
    """Write a number without an empty fraction, with a true minus sign, and never as -0."""
    return f"{round(float(value), 2) + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def _ink(drawn: AxesImage, value: float) -> str:
    """Return the colour, black or white, that is read best on a number's own colour."""
    red, green, blue, _ = drawn.to_rgba(np.array([value]))[0]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
