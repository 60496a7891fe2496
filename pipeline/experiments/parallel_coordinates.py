"""Parallel coordinates of a grid or search: one line a configuration, from its parameters to its accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from pipeline.experiments.report_figures import svg
from pipeline.experiments.results import text_of
from pipeline.plotting import styled

MOST_AXES = 8
MOST_NAMES = 6
"""Different values of a parameter up to which each is named."""

LOGARITHMIC = 30
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


def draw(values: Mapping[str, Sequence[Any]], accuracy: Sequence[float]) -> str:
    """Draw one axis for each parameter and validation accuracy at the right, and return SVG.

    Args:
        values: for up to `MOST_AXES` parameters the value of each configuration; further ones are left out.
        accuracy: of each configuration, a fraction, which colours its line.
    """
    named = dict(list(values.items())[:MOST_AXES]) | {"val/accuracy, %": [round(100 * value, 2) for value in accuracy]}
    columns = [_positions(column) for column in named.values()]
    low, high = min(accuracy), max(accuracy)
    with styled((max(9.4, 1.5 * len(named)), 3.6)) as figure:
        axes = figure.subplots()
        order = sorted(range(len(accuracy)), key=lambda number: accuracy[number])  # the best on top
        for number in order:
            share = (accuracy[number] - low) / (high - low) if high > low else 1.0
            heights = [positions[number] for positions, _ in columns]
            axes.plot(range(len(columns)), heights, color=mpl.colormaps["viridis_r"](share), lw=1.6, alpha=0.85)
        for x, (_, ticks) in enumerate(columns):
            _axis(axes, x, ticks)
        axes.set_xticks(range(len(named)), list(named), fontsize=8)
        axes.set(yticks=[], xlim=(-0.35, len(named) - 0.45), ylim=(-0.06, 1.06))
        axes.set_title("Parameters and validation accuracy: one line a configuration, dark is accurate")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        return svg(figure)


def _axis(axes: Axes, x: int, ticks: Mapping[str, float]) -> None:
    axes.vlines(x, 0, 1, color="black", lw=0.8, zorder=3)
    for text, height in ticks.items():
        shown = text if len(text) <= 16 else text[:15] + "…"
        axes.annotate(
            shown,
            (x, height),
            (-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )


def _positions(column: Sequence[Any]) -> tuple[list[float], dict[str, float]]:
    """Return the height (0..1) of each value on its axis, and the heights of the labels by their text."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in column):
        low, high = min(column), max(column)
        if low > 0 and high / low >= LOGARITHMIC:
            scaled: Normalize = LogNorm(low, high)
        else:
            scaled = Normalize(low, high)
        heights = [float(scaled(value)) if high > low else 0.5 for value in column]
        named = dict(zip(map("{:g}".format, column), heights, strict=True))
        return heights, named if len(named) <= MOST_NAMES else {f"{low:g}": 0.0, f"{high:g}": 1.0}
    texts = ["—" if value is None else text_of(value) for value in column]
    kinds = list(dict.fromkeys(texts))
    place = {text: number / (len(kinds) - 1) if len(kinds) > 1 else 0.5 for number, text in enumerate(kinds)}
    return [place[text] for text in texts], place if len(place) <= MOST_NAMES else {}
