"""Figures that several studies draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator

from pipeline.figures import COLOURS, saved


@dataclass(frozen=True)
class Panel:
    """One quantity of several variants: its values, each a list over seeds, and how a mean is written at its bar."""

    title: str
    unit: str
    values: Sequence[Sequence[float]]
    form: str = ",.0f"
    log: bool = False


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
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
