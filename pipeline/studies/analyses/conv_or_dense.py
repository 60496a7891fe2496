"""Dense against convolutional layers: weights and computation by image side; accuracy at equal weights or MACs."""

import math
from pathlib import Path

from matplotlib.ticker import EngFormatter, NullFormatter

from pipeline.experiments.tables import Table
from pipeline.plotting import BLUE, ORANGE, headline, saved
from pipeline.studies import counts
from pipeline.studies.analysis import Analysis, Findings, Picture, Quantity, counted, with_spread
from pipeline.studies.charts import Panel, bars
from pipeline.studies.collected import Collected
from pipeline.studies.counts import Count

SIDES = (32, 64, 128, 224, 256, 512)
TEXTBOOK_SIDE, UNITS, FILTERS = 224, 1000, 64
CNN, BY_WEIGHTS, BY_MACS = "cnn", "mlp-same-weights", "mlp-same-macs"

QUANTITIES = {
    "weights_ratio": Quantity(
        f"weights of a dense layer of {UNITS:,} units at {TEXTBOOK_SIDE} px, as a multiple of {FILTERS} 3x3 filters'",
        ",.0f",
        exact=True,
    ),
    "growth": Quantity(
        f"weights of that layer at {SIDES[-1]} px, as a multiple of those at {SIDES[0]} px", ",.0f", exact=True
    ),
    "gap_same_weights": Quantity("points of test accuracy of the CNN above a dense network of as many weights", ".1f"),
    "gap_same_macs": Quantity("points of test accuracy of the CNN above a dense network of as many MACs", ".1f"),
    "mismatch": Quantity("percent by which matched weights or MACs differ, the larger of both", ".2f", exact=True),
}


def analyse(collected: Collected) -> Findings:
    """Compare a CNN with dense networks of as many weights or MACs, and single layers by image side."""
    layers = {side: (counts.dense_layer(side, UNITS), counts.conv_layer(side, FILTERS)) for side in SIDES}
    found = {name: counts.network(collected.settings(name).model) for name in collected.variants}
    accuracy = {name: collected.mean(name, "test/accuracy") for name in found}
    dense, convolution = layers[TEXTBOOK_SIDE]
    quantities = {
        "weights_ratio": dense.parameters / convolution.parameters,
        "growth": layers[SIDES[-1]][0].parameters / layers[SIDES[0]][0].parameters,
        "gap_same_weights": 100 * (accuracy[CNN] - accuracy[BY_WEIGHTS]),
        "gap_same_macs": 100 * (accuracy[CNN] - accuracy[BY_MACS]),
        "mismatch": 100
        * max(
            abs(found[BY_WEIGHTS].parameters / found[CNN].parameters - 1),
            abs(found[BY_MACS].macs / found[CNN].macs - 1),
        ),
    }
    trained = f"The CNN is {_ahead(quantities['gap_same_weights'])} a dense network of its size and "
    trained += f"{_ahead(quantities['gap_same_macs'])} one of its cost"
    scaling = f"A dense layer on {TEXTBOOK_SIDE} x {TEXTBOOK_SIDE} px has {dense.parameters:,} weights, "
    scaling += f"a convolution {convolution.parameters:,} at any size; the computation of both grows with the pixels"
    panels = [
        Panel("Weights", "trainable parameters", [[count.parameters] for count in found.values()], log=True),
        Panel("Computation", "MACs per image", [[count.macs] for count in found.values()], log=True),
        Panel(
            "Accuracy",
            "test accuracy, %",
            [[100 * value for value in collected.values(name, "test/accuracy")] for name in found],
            ".1f",
        ),
    ]
    return Findings(
        quantities,
        (_by_side(layers), _networks(collected, found)),
        (
            Picture("-scaling", f"{scaling}.", lambda path: draw_scaling(path, layers)),
            Picture("", f"{trained}. Dots: seeds.", lambda path: bars(path, list(found), panels, trained)),
        ),
    )


def draw_scaling(path: Path, layers: dict[int, tuple[Count, Count]]) -> None:
    """Draw weights and multiply-accumulates of the two kinds of layers against the image's side."""
    names = (f"dense, {UNITS:,} units", f"3x3 convolution, {FILTERS} filters")
    with saved(path, (8.4, 3.3)) as figure:
        panels = (("parameters", "Weights", "weights"), ("macs", "Computation", "MACs per image"))
        for axes, (quantity, title, label) in zip(figure.subplots(1, 2), panels, strict=True):
            for kind, (name, colour, marker) in enumerate(zip(names, (ORANGE, BLUE), "so", strict=True)):
                values = [getattr(pair[kind], quantity) for pair in layers.values()]
                axes.plot(list(layers), values, color=colour, marker=marker, ms=4, label=name)
            axes.set(xscale="log", yscale="log", xlabel="image side, px", ylabel=label, title=title)
            axes.set_xticks(list(layers), [str(side) if side != 256 else "" for side in layers])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_tick_params(which="minor", size=0)
            axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
        weights, _ = figure.axes
        dense = layers[TEXTBOOK_SIDE][0].parameters
        weights.annotate(
            f"{TEXTBOOK_SIDE} px: {dense:,}",
            (TEXTBOOK_SIDE, dense),
            (-8, 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
        weights.legend(loc="center left", fontsize=8)
        headline(
            figure,
            "A convolution has as many weights on an image of any size; its computation grows as a dense layer's does",
        )


def _ahead(points: float) -> str:
    """Format how far the CNN is ahead, in points, as the beginning of a comparison."""
    if math.isnan(points):
        return "not comparable with"
    return f"{abs(points):.1f} points {'behind' if points < 0 else 'ahead of'}"


def _by_side(layers: dict[int, tuple[Count, Count]]) -> Table:
    head = ("image side, px", "dense: weights", "dense: MACs", "convolution: weights", "convolution: MACs")
    rows = tuple(
        (str(side), *(f"{number:,}" for count in pair for number in (count.parameters, count.macs)))
        for side, pair in layers.items()
    )
    return Table(
        f"A first layer on colour images: {UNITS:,} units, or {FILTERS} filters of 3x3 px", head, rows, text=0
    )


def _networks(collected: Collected, found: dict[str, Count]) -> Table:
    rows = tuple(
        (
            name,
            f"{count.parameters:,}",
            f"{count.macs:,}",
            with_spread(collected.values(name, "test/accuracy"), 100),
            with_spread(collected.values(name, "train/accuracy"), 100),
            counted(collected, name),
        )
        for name, count in found.items()
    )
    return Table("Trained networks", ("network", "parameters", "MACs", "test, %", "train, %", "n"), rows)


ANALYSIS = Analysis(QUANTITIES, analyse)
