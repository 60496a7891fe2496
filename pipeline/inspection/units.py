"""The activity of every activation layer over a set of images: mean output, saturated outputs, dead units.

`pipeline.models.common.activity` defines the terms.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.dataset import Split
from pipeline.evaluation import inference
from pipeline.models.common import activity

Row = Mapping[str, Any]
"""One line of layers.csv: layer, activation, units, mean, saturated and dead (0..1; "" if it cannot be)."""


def measure(model: nn.Module, split: Split, *, batch_size: int, place: torch.device) -> list[Row]:
    """Return one row for every activation layer, in the order in which they run; holds the outputs of one batch.

    A unit is a channel of a convolution, a neuron of a fully connected layer, or a feature of tokens. Activations that
    are functions and no modules have no row.
    """
    found: dict[str, tuple[str, activity.Tally]] = {}

    def add(name: str, layer: nn.Module, outputs: Tensor) -> None:
        _, tally = found.setdefault(name, (type(layer).__name__, activity.Tally(layer)))
        tally.add(outputs)

    with activity.watched(model, activity.activation_layers(model), add):
        inference.predict(model, split, batch_size=batch_size, place=place)
    return [_row(name, kind, tally) for name, (kind, tally) in found.items()]


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Return the share of all units that are dead ("inspect/dead_share") and of outputs that are saturated.

    The latter ("inspect/saturated_share") is the mean over layers. Either is absent if no layer can be so.
    """
    result: dict[str, float] = {}
    if rectifying := [row for row in rows if row["dead"] != ""]:
        dead = sum(row["dead"] * row["units"] for row in rectifying)
        result["inspect/dead_share"] = dead / sum(row["units"] for row in rectifying)
    if saturating := [row["saturated"] for row in rows if row["saturated"] != ""]:
        result["inspect/saturated_share"] = statistics.fmean(saturating)
    return result


def _row(name: str, kind: str, tally: activity.Tally) -> Row:
    found = tally.activity()
    shares = {"saturated": found.saturated, "dead": found.dead}
    known = {key: "" if share is None else share for key, share in shares.items()}
    return {"layer": name, "activation": kind, "units": tally.units, "mean": found.mean, **known}
