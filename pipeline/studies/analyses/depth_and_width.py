"""Depth and width: accuracy gained by more layers and more channels, and their cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter

from pipeline.config.schema import ModelParams
from pipeline.experiments import statistics
from pipeline.experiments.tables import FRONT, Table
from pipeline.plotting import BLUE, GREY, ORANGE, saved
from pipeline.studies import counts
from pipeline.studies.analysis import Analysis, Findings, Picture, Quantity, counted, with_spread
from pipeline.studies.collected import Collected

FAMILIES = {"cnn": "CNN", "resnet": "ResNet"}
LOOKS = {"cnn": (BLUE, "o"), "resnet": (ORANGE, "s")}

QUANTITIES = {
    f"{family}_{direction}": Quantity(
        f"points of test accuracy from the {least} {called} to the {most}, mean over {others}s", "+.1f"
    )
    for family, called in FAMILIES.items()
    for direction, most, least, others in (
        ("depth", "deepest", "shallowest", "width"),
        ("width", "widest", "narrowest", "depth"),
    )
}


@dataclass(frozen=True)
class Point:
    """One network: size, cost and test accuracies by seed; `width` is the first stage's number of channels."""

    variant: str
    family: str
    width: int
    depth: int
    parameters: int
    macs: int
    accuracy: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean test accuracy over seeds, NaN if all trainings diverged."""
        return sum(self.accuracy) / len(self.accuracy) if self.accuracy else math.nan


def analyse(collected: Collected) -> Findings:
    """Compare networks of several depths and widths."""
    points = [_point(collected, variant) for variant in collected.variants]
    trained = [point for point in points if point.accuracy]
    on_front = statistics.pareto([point.macs for point in trained], [point.mean for point in trained])
    front = [point for point, on in zip(trained, on_front, strict=True) if on]
    quantities = {f"{family}_depth": gain(points, family, "depth", "width") for family in FAMILIES}
    quantities |= {f"{family}_width": gain(points, family, "width", "depth") for family in FAMILIES}
    rows = tuple(
        (
            f"{point.variant} {FRONT}" if point in front else point.variant,
            str(point.width),
            str(point.depth),
            f"{point.parameters:,}",
            f"{point.macs:,}",
            with_spread([float(value) for value in point.accuracy], 100),
            counted(collected, point.variant),
        )
        for point in points
    )
    head = ("network", "first width", "depth", "parameters", "MACs", "test, %", "n")
    shares = [
        f"{sum(one.family == family for one in front)} of {sum(one.family == family for one in points)} {called}s"
        for family, called in FAMILIES.items()
    ]
    caption = f"Most accurate for their computation (grey): {' and '.join(shares)}"
    return Findings(
        quantities,
        (Table(f"Networks; {FRONT}: no other is as accurate with as few multiply-accumulates", head, rows),),
        (
            Picture(
                "",
                f"{caption}. A line joins networks of one width, from shallow to deep.",
                lambda path: draw(path, trained, front, caption),
            ),
        ),
    )


def gain(points: Sequence[Point], family: str, along: str, over: str) -> float:
    """Return how much more accurate the largest networks along a direction are than the smallest.

    Args:
        along, over: "width" and "depth", in either order; the mean is over all values of the latter.

    Returns:
        A difference of mean accuracies in percentage points; NaN if a training that it needs diverged.
    """
    lines: dict[int, list[Point]] = {}
    for point in sorted(
        (point for point in points if point.family == family), key=lambda point: getattr(point, along)
    ):
        lines.setdefault(getattr(point, over), []).append(point)
    gains = [line[-1].mean - line[0].mean for line in lines.values() if len(line) > 1]
    return 100 * sum(gains) / len(gains) if gains else math.nan


def draw(path: Path, points: Sequence[Point], front: Sequence[Point], title: str) -> None:
    """Draw accuracy against multiply-accumulates, the networks of one width joined, and the Pareto front."""
    with saved(path, (7.2, 4.6)) as figure:
        axes = figure.subplots()
        ordered = sorted(front, key=lambda point: point.macs)
        steps = [point.macs for point in ordered], [100 * point.mean for point in ordered]
        axes.step(*steps, where="post", color=GREY, lw=5, alpha=0.25, label="Pareto front", zorder=1)
        for family in FAMILIES:
            colour, marker = LOOKS[family]
            widths = sorted({point.width for point in points if point.family == family})
            for width in widths:
                line = [point for point in points if (point.family, point.width) == (family, width)]
                line.sort(key=lambda point: point.depth)
                means = [100 * point.mean for point in line]
                below = [100 * (point.mean - min(point.accuracy)) for point in line]
                above = [100 * (max(point.accuracy) - point.mean) for point in line]
                axes.errorbar(
                    [point.macs for point in line],
                    means,
                    yerr=(below, above),
                    color=colour,
                    marker=marker,
                    ms=5,
                    lw=1,
                    capsize=2,
                    label=FAMILIES[family] if width == widths[0] else None,
                )
                axes.annotate(
                    f"width {width}",
                    (line[-1].macs, means[-1]),
                    (6, -3),
                    textcoords="offset points",
                    fontsize=8,
                    color=colour,
                    path_effects=[withStroke(linewidth=2.5, foreground="white")],
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.margins(x=0.16)
        axes.set(xlabel="multiply-accumulates per image", ylabel="test accuracy, %", title=title)
        axes.legend(loc="lower right", fontsize=8)


def _point(collected: Collected, variant: str) -> Point:
    params = collected.settings(variant).model
    width, depth = _shape(params)
    count = counts.network(params)
    accuracy = tuple(collected.values(variant, "test/accuracy"))
    return Point(variant, params.arch, width, depth, count.parameters, count.macs, accuracy)


def _shape(params: ModelParams) -> tuple[int, int]:
    """Return a network's first width in channels and its depth in layers with weights."""
    if params.arch == "resnet":
        return params.resnet.width, params.resnet.depth
    cnn = params.cnn
    convs = cnn.convs_per_block
    layers = convs * len(cnn.widths) if isinstance(convs, int) else sum(convs)
    return cnn.widths[0], layers + len(cnn.hidden) + 1


ANALYSIS = Analysis(QUANTITIES, analyse)
