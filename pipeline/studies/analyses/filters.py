"""Filters: orientation selectivity and edge similarity of first layers, and separability of the classes by stage.

torch and scikit-learn are imported inside functions: they take seconds, which printing a plan does not need.
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from pipeline.experiments.statistics import SIGNIFICANT, p_text
from pipeline.experiments.tables import ABSENT, Table
from pipeline.studies.analysis import Analysis, Findings, Picture, Quantity, counted, with_spread
from pipeline.studies.charts import Curve, Plot, curves
from pipeline.studies.collected import Collected
from pipeline.studies.insight import Seen, look

if TYPE_CHECKING:
    from pipeline.inspection.separability import Separability

MEASURES = ("selectivity", "edge_cosine")

QUANTITIES = {
    "oriented": Quantity(f"percent of networks more orientation-selective than chance (p < {SIGNIFICANT})", ".0f"),
    "edge_like": Quantity(f"percent of networks more like edge filters than chance (p < {SIGNIFICANT})", ".0f"),
    "rise": Quantity(
        "points by which a linear probe is more accurate on the last stage than on the first, minimum over networks",
        "+.1f",
    ),
    "learned": Quantity("points by which that exceeds the same before training, minimum over networks", "+.1f"),
    "least_step": Quantity("points from one stage to the next, minimum over networks and stages", "+.1f"),
}


def analyse(collected: Collected) -> Findings:
    """Measure every network: its first layer's filters, and the separability of the classes by stage."""
    return conclude(collected, look(collected))


def conclude(collected: Collected, seen: dict[str, list[Seen]]) -> Findings:
    """Return the findings from the measurements of `insight.look`."""
    accuracies = {variant: _by_stage([one.stages for one in several]) for variant, several in seen.items()}
    before = {variant: _by_stage([one.before for one in several]) for variant, several in seen.items()}
    rises = {variant: _rise(values) for variant, values in accuracies.items()}
    quantities = {
        "oriented": _share(seen, "selectivity"),
        "edge_like": _share(seen, "edge_cosine"),
        "rise": _least(list(rises.values())),
        "learned": _least([rise - _rise(before[variant]) for variant, rise in rises.items()]),
        "least_step": _least([step for values in accuracies.values() for step in _steps(values)]),
    }
    caption = _caption(quantities["rise"])
    probes = [
        Plot(
            variant,
            "stage",
            "accuracy, %",
            {"trained": _curve(accuracies[variant]), "before training": _curve(before[variant])},
            integer=True,
        )
        for variant in seen
    ]
    drawn = partial(curves, plots=probes, title=caption, columns=len(probes), shared=True)
    pictures = (*_pictures(seen), Picture("", f"{caption}. A linear probe on the mean of each channel.", drawn))
    tables = (_first_layers(collected, seen), _separability(seen, accuracies, before))
    return Findings(quantities, tables, pictures)


def _pictures(seen: dict[str, list[Seen]]) -> tuple[Picture, ...]:
    """Return a figure of first-layer filters for each variant."""
    return tuple(
        Picture(
            f"-{variant}",
            f"First-layer filters of {variant}, the first seed's.",
            partial(_draw_filters, one=several[0]),
        )
        for variant, several in seen.items()
        if several
    )


def _draw_filters(path: Path, one: Seen) -> None:
    from pipeline.inspection import filters, filters_figures

    filters_figures.first_layer(path, one.layer, filters.selectivity(one.layer.filters), one.random)


def _caption(rise: float) -> str:
    if math.isnan(rise):
        return "Separability of the classes by stage; trainings are missing"
    if rise > 0:
        return f"From first stage to last, every network separates the classes better, by {rise:.1f} points or more"
    return f"Not every network separates the classes better on its last stage than on its first ({rise:+.1f} points)"


def _by_stage(networks: Sequence[Sequence["Separability"]]) -> list[list[float]]:
    """Return accuracies in percent: a list over seeds for each stage."""
    return [[100 * one.accuracy for one in stages] for stages in zip(*networks, strict=True)]


def _rise(values: list[list[float]]) -> float:
    return fmean(values[-1]) - fmean(values[0]) if values else math.nan


def _steps(values: list[list[float]]) -> list[float]:
    means = [fmean(several) for several in values]
    return [later - earlier for earlier, later in itertools.pairwise(means)] or [math.nan]


def _least(values: list[float]) -> float:
    """Return the lowest value; NaN if one is NaN, which min() may drop."""
    return math.nan if any(map(math.isnan, values)) else min(values)


def _share(seen: dict[str, list[Seen]], measure: str) -> float:
    """Return the percentage of networks with a measure above chance; NaN if a variant has no network."""
    if not all(seen.values()):
        return math.nan
    above = [one.first[f"first_layer/{measure}_p"] < SIGNIFICANT for several in seen.values() for one in several]
    return 100 * sum(above) / len(above)


def _curve(values: list[list[float]]) -> Curve:
    return Curve(range(1, len(values) + 1), values)


def _first_layers(collected: Collected, seen: dict[str, list[Seen]]) -> Table:
    rows = []
    for variant, several in seen.items():
        cells = [str(len(several[0].layer.filters)) if several else ABSENT]
        for measure in MEASURES:
            columns = ([one.first[f"first_layer/{measure}{end}"] for one in several] for end in ("", "_random", "_p"))
            found, random, p = columns
            cells += [with_spread(found), with_spread(random[:1]), p_text(max(p)) if p else ABSENT]
        rows.append((variant, *cells, counted(collected, variant)))
    head = ("network", "filters", "selectivity", "random", "highest p", "edge cosine", "random", "highest p", "n")
    return Table("First layers: orientation selectivity, and similarity to edge filters", head, tuple(rows))


def _separability(
    seen: dict[str, list[Seen]], after: dict[str, list[list[float]]], before: dict[str, list[list[float]]]
) -> Table:
    rows = tuple(
        (
            variant,
            one.name,
            str(one.channels),
            with_spread(after[variant][number]),
            with_spread(before[variant][number]),
        )
        for variant, several in seen.items()
        if several
        for number, one in enumerate(several[0].stages)
    )
    head = ("network", "stage", "channels", "trained, accuracy %", "before training, accuracy %")
    return Table("Accuracy of a linear probe by stage", head, rows, text=2)


ANALYSIS = Analysis(QUANTITIES, analyse)
