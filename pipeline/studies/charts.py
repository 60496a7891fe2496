"""Figures that several studies share: bars and curves over variants."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from pipeline.plotting import COLOURS, headline, saved

CHARACTERS_PER_INCH = 12.5
MOST_MARKERS = 12
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Panel:
    """One quantity: for each variant its values over seeds, and the format of the mean beside its bar."""

    title: str
    unit: str
    values: Sequence[Sequence[float]]
    form: str = ",.0f"
    log: bool = False


@dataclass(frozen=True)
class Curve:
    """Values over x, for each x a list over seeds, which may be empty."""

    x: Sequence[float]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Plot:
    """Curves by name in one panel; `log`: logarithmic x axis; `integer`: ticks at whole numbers only."""

    title: str
    xlabel: str
    ylabel: str
    curves: Mapping[str, Curve]
    log: bool = False
    integer: bool = False


def bars(path: Path, names: Sequence[str], panels: Sequence[Panel], title: str) -> None:
    """Draw a bar for each variant in each panel: the mean, and each seed as a dot."""
    positions = np.arange(len(names))[::-1]
    with saved(path, (2.5 * len(panels) + 0.8, 0.34 * len(names) + 1.25)) as figure:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            known = [value for values in panel.values for value in values] or [1.0]
            start = min(known) / 3 if panel.log else 0.0
            for y, colour, values in zip(positions, _colours(len(names)), panel.values, strict=True):
                if not values:
                    axes.text(start, y, "  diverged", va="center", fontsize=8)
                    continue
                mean = float(np.mean(values))
                axes.barh(y, mean - start, 0.62, left=start, color=colour, alpha=0.75)
                if len(values) > 1:
                    axes.plot(values, [y] * len(values), "o", color="black", ms=3)
                axes.text(max(values), y, f"  {mean:{panel.form}}", va="center", fontsize=8)
            if panel.log:
                axes.set_xscale("log")
                axes.set_xlim(start, max(known) * 30)
            else:  # leave room, without ticks, for the numbers beside the bars
                axes.set_xlim(0, max(known) * 1.5)
                axes.set_xticks([tick for tick in MaxNLocator(3).tick_values(0, max(known)) if tick <= max(known)])
            if max(known) >= 1000:
                axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
            axes.grid(visible=False, axis="y")
            axes.set(title=panel.title, xlabel=panel.unit)
        row[0].set_yticks(positions, names)
        wrapped_headline(figure, title)


def curves(path: Path, plots: Sequence[Plot], title: str, *, columns: int, shared: bool = False) -> None:
    """Draw the means over seeds with a band from minimum to maximum; one legend for all plots.

    Args:
        plots: row by row; a name has the same colour and marker in all of them.
        columns: number of plots in a row.
        shared: the plots of a row share the y axis.
    """
    rows = -(-len(plots) // columns)
    names = list(dict.fromkeys(name for plot in plots for name in plot.curves))
    with saved(path, (3.6 * columns + 0.4, 2.7 * rows + 0.7)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey="row" if shared else "none")
        for axes, plot in zip(panels.flat, plots, strict=False):
            for name, curve in plot.curves.items():
                number = names.index(name)
                colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                known = [(x, values) for x, values in zip(curve.x, curve.values, strict=True) if values]
                xs, values = [x for x, _ in known], [values for _, values in known]
                means = [float(np.mean(several)) for several in values]
                every = max(1, len(xs) // MOST_MARKERS)
                axes.plot(xs, means, color=colour, marker=marker, ms=4, lw=1.2, markevery=every, label=name)
                if any(len(several) > 1 for several in values):
                    lowest, highest = [min(several) for several in values], [max(several) for several in values]
                    axes.fill_between(xs, lowest, highest, color=colour, alpha=0.15, lw=0)
            axes.set(title=plot.title, xlabel=plot.xlabel, ylabel=plot.ylabel)
            if plot.log:
                _log_ticks(axes, sorted({x for curve in plot.curves.values() for x in curve.x}))
            elif plot.integer:
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        for axes in panels.flat[len(plots) :]:
            axes.axis("off")
        handles = {
            label: handle
            for axes in panels.flat
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles) or 1, fontsize=8
        )
        wrapped_headline(figure, title)


def wrapped_headline(figure: Figure, text: str) -> None:
    """Put a headline over a figure, wrapped to its width."""
    headline(figure, textwrap.fill(text, int(CHARACTERS_PER_INCH * figure.get_figwidth())))


def _log_ticks(axes: Axes, xs: Sequence[float]) -> None:
    """Make the x axis logarithmic, with ticks only where there are values."""
    axes.set_xscale("log")
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.set_xticks([], minor=True)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
