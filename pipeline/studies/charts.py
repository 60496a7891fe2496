"""Figures that several studies draw."""

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
    """One quantity of several variants: its values, each a list over seeds, and how a mean is written at its bar."""

    title: str
    unit: str
    values: Sequence[Sequence[float]]
    form: str = ",.0f"
    log: bool = False


@dataclass(frozen=True)
class Curve:
    """Values at several places, those of each place as a list over seeds; a place may have none."""

    places: Sequence[float]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Plot:
    """Curves by name, in axes of their own; `whole` places are numbers of something, ticks only at those."""

    title: str
    across: str
    up: str
    curves: Mapping[str, Curve]
    log: bool = False
    whole: bool = False


def bars(path: Path, names: Sequence[str], panels: Sequence[Panel], title: str) -> None:
    """Draw a bar for each variant in each panel: the mean, and each seed as a dot."""
    places = np.arange(len(names))[::-1]
    with saved(path, (2.5 * len(panels) + 0.8, 0.34 * len(names) + 1.25)) as figure:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            known = [value for values in panel.values for value in values] or [1.0]
            start = min(known) / 3 if panel.log else 0.0
            for place, colour, values in zip(places, _colours(len(names)), panel.values, strict=True):
                if not values:
                    axes.text(start, place, "  diverged", va="center", fontsize=8)
                    continue
                mean = float(np.mean(values))
                axes.barh(place, mean - start, 0.62, left=start, color=colour, alpha=0.75)
                if len(values) > 1:
                    axes.plot(values, [place] * len(values), "o", color="black", ms=3)
                axes.text(max(values), place, f"  {mean:{panel.form}}", va="center", fontsize=8)
            if panel.log:
                axes.set_xscale("log")
                axes.set_xlim(start, max(known) * 30)
            else:  # room for the numbers beside the bars, and no ticks there
                axes.set_xlim(0, max(known) * 1.5)
                axes.set_xticks([tick for tick in MaxNLocator(3).tick_values(0, max(known)) if tick <= max(known)])
            if max(known) >= 1000:
                axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
            axes.grid(visible=False, axis="y")
            axes.set(title=panel.title, xlabel=panel.unit)
        row[0].set_yticks(places, names)
        wrapped_headline(figure, title)


def curves(path: Path, plots: Sequence[Plot], title: str, *, columns: int, shared: bool = False) -> None:
    """Draw curves through the means over seeds, with a band from the lowest to the highest; one legend for all.

    Args:
        plots: row by row; a name has the same colour and marker in all of them.
        columns: plots in a row.
        shared: those of a row have one scale, so that they can be compared.
    """
    rows = -(-len(plots) // columns)
    names = list(dict.fromkeys(name for plot in plots for name in plot.curves))
    with saved(path, (3.6 * columns + 0.4, 2.7 * rows + 0.7)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey="row" if shared else "none")
        for axes, plot in zip(panels.flat, plots, strict=False):
            for name, curve in plot.curves.items():
                number = names.index(name)
                colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                known = [(place, values) for place, values in zip(curve.places, curve.values, strict=True) if values]
                places, values = [place for place, _ in known], [values for _, values in known]
                means = [float(np.mean(several)) for several in values]
                every = max(1, len(places) // MOST_MARKERS)
                axes.plot(places, means, color=colour, marker=marker, ms=4, lw=1.2, markevery=every, label=name)
                if any(len(several) > 1 for several in values):
                    lowest, highest = [min(several) for several in values], [max(several) for several in values]
                    axes.fill_between(places, lowest, highest, color=colour, alpha=0.15, lw=0)
            axes.set(title=plot.title, xlabel=plot.across, ylabel=plot.up)
            if plot.log:
                _log_ticks(axes, sorted({place for curve in plot.curves.values() for place in curve.places}))
            elif plot.whole:
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
    """Write over a figure what is seen in it, in as many lines as its width asks for."""
    headline(figure, textwrap.fill(text, int(CHARACTERS_PER_INCH * figure.get_figwidth())))


def _log_ticks(axes: Axes, places: Sequence[float]) -> None:
    """Put a logarithmic axis' ticks where there are values, and nowhere else."""
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set_xticks([], minor=True)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
