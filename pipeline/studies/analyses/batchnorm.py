"""Batch normalisation: accuracy by scale of the initial weights, and the range of learning rates that work."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.experiments.tables import ABSENT, Table
from pipeline.plotting import BLUE, GREY, ORANGE, saved
from pipeline.studies.analysis import CHANCE, Analysis, Findings, Picture, Quantity, in_points, or_chance, with_spread
from pipeline.studies.charts import wrapped_headline
from pipeline.studies.collected import Collected

PLAIN, NORM = "none", "batch"
NAMES = {PLAIN: "without batch norm", NORM: "with batch norm"}
LOOKS = {PLAIN: (ORANGE, "s"), NORM: (BLUE, "o")}
PROPER = 1.0
"""The factor on the initial weights that leaves them unchanged."""
NEAR = 0.05
"""A learning rate works if its accuracy is at most this far below the best, and at least this far above chance."""

QUANTITIES = {
    "norm_loss": Quantity(
        "points lost with batch norm from the smallest and the largest weights, the larger of both", ".1f"
    ),
    "plain_loss": Quantity("points lost without it from the same weights, the smaller of both", ".1f"),
    "rates_ratio": Quantity(
        f"number of the grid's learning rates within {100 * NEAR:.0f} points of the best, with over without", ".2f"
    ),
    "norm_gain": Quantity("points of test accuracy gained by batch norm from a proper start", "+.1f"),
}


@dataclass(frozen=True)
class Cell:
    """The trainings of one norm, initial scale and learning rate, by seed; those that diverged are at chance."""

    norm: str
    scale: float
    lr: float
    val: tuple[float, ...]
    test: tuple[float, ...]
    diverged: tuple[bool, ...]

    @property
    def mean(self) -> float:
        """The mean test accuracy."""
        return statistics.fmean(self.test)

    @property
    def text(self) -> str:
        """The mean test accuracy in percent, and how many trainings diverged."""
        if all(self.diverged):
            return "diverged"
        some = f"\n{sum(self.diverged)} of {len(self.test)}\ndiverged" if any(self.diverged) else ""
        return f"{100 * self.mean:.1f}{some}"


def analyse(collected: Collected) -> Findings:
    """Compare networks with and without batch norm over initial scales and learning rates."""
    cells = [_cell(collected, variant) for variant in collected.variants]
    best = best_rates(cells)
    scales = sorted({cell.scale for cell in cells})
    working = {norm: usable([cell for cell in cells if (cell.norm, cell.scale) == (norm, PROPER)]) for norm in NAMES}
    # The loss of a network that never learns is undefined.
    whole = {norm: best[norm, PROPER].mean if working[norm] else math.nan for norm in NAMES}
    lost = {norm: [100 * (whole[norm] - best[norm, end].mean) for end in (scales[0], scales[-1])] for norm in NAMES}
    quantities = {
        "norm_loss": max(lost[NORM]),
        "plain_loss": min(lost[PLAIN]),
        "rates_ratio": len(working[NORM]) / len(working[PLAIN]) if working[PLAIN] else math.nan,
        "norm_gain": 100 * (best[NORM, PROPER].mean - best[PLAIN, PROPER].mean),
    }
    starts = f"Initial weights times {scales[0]:g} or {scales[-1]:g} cost up to "
    starts += f"{in_points(quantities['norm_loss'], '.1f')} with batch norm, and at least "
    starts += f"{in_points(quantities['plain_loss'], '.1f')} without"
    rates = sorted({cell.lr for cell in cells})
    works = f"Of {len(rates)} learning rates {len(working[NORM])} work with batch norm, "
    works += f"{len(working[PLAIN])} without (at most {100 * NEAR:.0f} points below the best)"
    return Findings(
        quantities,
        (_starts(cells, best), _rates(cells, working)),
        (
            Picture("", f"{starts}. Grey: every training diverged.", lambda path: draw_grid(path, cells, starts)),
            Picture(
                "-curves",
                f"{works}. Markers: seeds; x: diverged, counted as chance.",
                lambda path: draw_curves(path, cells, best, works),
            ),
        ),
    )


def best_rates(cells: Sequence[Cell]) -> dict[tuple[str, float], Cell]:
    """Return for each norm and initial scale the cell of the learning rate with the highest val accuracy."""
    best: dict[tuple[str, float], Cell] = {}
    for cell in cells:
        known = best.setdefault((cell.norm, cell.scale), cell)
        if statistics.fmean(cell.val) > statistics.fmean(known.val):
            best[cell.norm, cell.scale] = cell
    return best


def usable(cells: Sequence[Cell]) -> list[float]:
    """Return the learning rates that work: within `NEAR` of the best, and at least `NEAR` above chance."""
    top = max(cell.mean for cell in cells)
    return sorted(cell.lr for cell in cells if cell.mean >= max(top - NEAR, CHANCE + NEAR))


def draw_grid(path: Path, cells: Sequence[Cell], title: str) -> None:
    """Draw test accuracy over initial scale and learning rate, without and with batch norm."""
    scales, rates = sorted({cell.scale for cell in cells}), sorted({cell.lr for cell in cells})
    top = max(cell.mean for cell in cells)
    with saved(path, (2.4 + 1.5 * len(rates), 1.5 + 0.5 * len(scales))) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (norm, name) in zip(panels, NAMES.items(), strict=True):
            grid = np.full((len(scales), len(rates)), np.nan)
            for cell in (cell for cell in cells if cell.norm == norm):
                row, column = scales.index(cell.scale), rates.index(cell.lr)
                grid[row, column] = np.nan if all(cell.diverged) else 100 * cell.mean
                dark = cell.mean > (CHANCE + top) / 2
                axes.text(
                    column, row, cell.text, ha="center", va="center", fontsize=7.5, color="white" if dark else "black"
                )
            axes.set_facecolor("#d0d0d0")
            image = axes.imshow(grid, cmap="Blues", vmin=100 * CHANCE, vmax=100 * max(top, 2 * CHANCE), aspect="auto")
            axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
            axes.set_yticks(range(len(scales)), [f"{scale:g}" for scale in scales])
            axes.set(title=name[0].upper() + name[1:], xlabel="learning rate")
            axes.grid(visible=False)
        panels[0].set_ylabel("factor on initial weights")
        figure.colorbar(image, ax=panels, label="test accuracy, %")
        wrapped_headline(figure, title)


def draw_curves(path: Path, cells: Sequence[Cell], best: dict[tuple[str, float], Cell], title: str) -> None:
    """Draw test accuracy over the initial scale, each at its best rate, and over the rate at the proper scale."""
    with saved(path, (8.4, 3.4)) as figure:
        by_scale, by_rate = figure.subplots(1, 2, sharey=True)
        for norm in NAMES:
            proper = [cell for cell in cells if (cell.norm, cell.scale) == (norm, PROPER)]
            _line(by_rate, norm, {cell.lr: cell for cell in proper})
            _line(by_scale, norm, {scale: cell for (of, scale), cell in best.items() if of == norm})
        for axes in (by_scale, by_rate):
            axes.axhline(100 * CHANCE, color=GREY, ls="--", lw=1, label="chance")
            axes.set_ylim(0, None)
        by_scale.set(
            title="Each start at its best learning rate",
            xlabel="factor on initial weights",
            ylabel="test accuracy, %",
        )
        by_rate.set(title="Proper initial weights", xlabel="learning rate")
        figure.legend(*by_scale.get_legend_handles_labels(), loc="outside right center", fontsize=8)
        wrapped_headline(figure, title)


def _line(axes: Axes, norm: str, cells: dict[float, Cell]) -> None:
    """Draw the means of cells over their keys as a line, and each seed as a marker."""
    colour, marker = LOOKS[norm]
    xs = sorted(cells)
    axes.plot(xs, [100 * cells[x].mean for x in xs], color=colour, lw=1.3)
    axes.plot([], [], color=colour, marker=marker, ms=4, lw=1.3, label=NAMES[norm])
    axes.set_xscale("log")
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.set_xticks([], minor=True)
    for x, cell in cells.items():
        for value, diverged in zip(cell.test, cell.diverged, strict=True):
            axes.plot(x, 100 * value, "x" if diverged else marker, color=colour, ms=8 if diverged else 4, mew=1.5)


def _cell(collected: Collected, variant: str) -> Cell:
    settings = collected.settings(variant)
    val, test = (tuple(or_chance(collected, variant, f"{split}/accuracy")) for split in ("val", "test"))
    diverged = tuple(bool(reason) for reason in collected.of(variant)["diverged"])
    cnn = settings.model.cnn
    return Cell(cnn.norm, cnn.init_scale, settings.optimizer.lr, val, test, diverged)


def _starts(cells: Sequence[Cell], best: dict[tuple[str, float], Cell]) -> Table:
    rows = []
    for (norm, scale), cell in sorted(best.items(), key=lambda item: (item[0][0] != NORM, item[0][1])):
        all_of = [gone for one in cells if (one.norm, one.scale) == (norm, scale) for gone in one.diverged]
        rate = ABSENT if all(cell.diverged) else f"{cell.lr:g}"
        diverged = f"{sum(all_of)} of {len(all_of)}"
        scores = (with_spread(values, 100) for values in (cell.test, cell.val))
        rows.append((NAMES[norm], f"{scale:g}", rate, *scores, diverged))
    head = ("network", "factor on initial weights", "best learning rate", "test, %", "val, %", "diverged, all rates")
    return Table("Each start at its best learning rate", head, tuple(rows))


def _rates(cells: Sequence[Cell], working: dict[str, list[float]]) -> Table:
    rows = []
    for norm in (NORM, PLAIN):
        proper = [cell for cell in cells if (cell.norm, cell.scale) == (norm, PROPER)]
        which = ", ".join(f"{rate:g}" for rate in working[norm]) or ABSENT
        share = f"{100 * len(working[norm]) / len(proper):.0f}"
        rows.append((NAMES[norm], which, share, f"{100 * max(cell.mean for cell in proper):.2f}"))
    head = ("network", "learning rates that work", "share of the grid, %", "best test, %")
    title = f"Learning rates from a proper start: at most {100 * NEAR:.0f} points below the best, and learning at all"
    return Table(title, head, tuple(rows), text=2)


ANALYSIS = Analysis(QUANTITIES, analyse)
