"""Pooling: computation and weights that it saves, and the accuracy that it costs."""

import numpy as np

from pipeline.experiments.tables import Table
from pipeline.studies import counts
from pipeline.studies.analysis import Analysis, Findings, Picture, Quantity, counted, with_spread
from pipeline.studies.charts import Panel, bars
from pipeline.studies.collected import Collected

POOLED, WITHOUT = ("max", "average"), "none"
"""The variants with pooling and the one without; `stride` is shown for comparison, and no condition uses it."""

QUANTITIES = {
    "macs_ratio": Quantity(
        "MACs with pooling divided by those without, the larger of max and average", ".2f", exact=True
    ),
    "weights_ratio": Quantity(
        "weights with pooling divided by those without, the larger of max and average", ".2f", exact=True
    ),
    "accuracy_loss": Quantity("points of test accuracy lost by pooling, the larger of max and average", ".1f"),
}


def analyse(collected: Collected) -> Findings:
    """Compare networks that differ only in `model.cnn.pooling`."""
    found = {name: counts.network(collected.settings(name).model) for name in collected.variants}
    whole = found[WITHOUT]
    accuracy = {name: collected.mean(name, "test/accuracy") for name in found}
    quantities = {
        "macs_ratio": max(found[name].macs / whole.macs for name in POOLED),
        "weights_ratio": max(found[name].parameters / whole.parameters for name in POOLED),
        "accuracy_loss": 100 * (accuracy[WITHOUT] - np.min([accuracy[name] for name in POOLED])),  # min() drops NaN
    }
    rows = tuple(
        (
            name,
            f"{found[name].macs:,}",
            f"{found[name].parameters:,}",
            f"{found[name].conv_parameters:,}",
            f"{found[name].dense_parameters:,}",
            with_spread(seconds_per_epoch(collected, name)),
            with_spread(collected.values(name, "test/accuracy"), 100),
            with_spread(collected.values(name, "train/accuracy"), 100),
            counted(collected, name),
        )
        for name in collected.variants
    )
    counted_columns = ("MACs", "parameters", "in convolutions", "in dense layers")
    head = ("pooling", *counted_columns, "s per epoch", "test, %", "train, %", "n")
    panels = [
        Panel("Computation", "MACs per image", [[count.macs] for count in found.values()]),
        Panel("Weights", "trainable parameters", [[count.parameters] for count in found.values()]),
        Panel("Time", "seconds per epoch", [seconds_per_epoch(collected, name) for name in found], ".1f"),
        Panel("Accuracy", "test accuracy, %", [_percent(collected, name) for name in found], ".1f"),
    ]
    caption = (
        f"With max pooling the network needs {found['max'].macs / whole.macs:.0%} of the computation and "
        f"{found['max'].parameters / whole.parameters:.0%} of the weights of the one without"
    )
    return Findings(
        quantities,
        (Table("The same network with each kind of pooling", head, rows),),
        (Picture("", f"{caption}. Dots: seeds.", lambda path: bars(path, list(found), panels, caption)),),
    )


def seconds_per_epoch(collected: Collected, variant: str) -> list[float]:
    """Return the seconds per epoch of training, by seed."""
    pairs = zip(collected.values(variant, "train/seconds"), collected.values(variant, "train/epochs"), strict=True)
    return [seconds / epochs for seconds, epochs in pairs]


def _percent(collected: Collected, variant: str) -> list[float]:
    return [100 * value for value in collected.values(variant, "test/accuracy")]


ANALYSIS = Analysis(QUANTITIES, analyse)
