"""How the units of every activation layer behave over a set of images: how active, how saturated, how dead.

What these words mean is said in `pipeline.activity`, which measures the same while a network trains.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.dataset import Split
from pipeline.evaluation import inference
from pipeline.models.common import activity

Row = Mapping[str, Any]
"""One line of layers.csv: layer, activation, units, mean, saturated and dead (0..1; "" if it cannot be)."""


def measure(model: nn.Module, split: Split, *, batch_size: int, place: torch.device) -> list[Row]:
    """Return one row for every activation layer over all images of a split; of outputs only a batch is held.

    A unit is a channel of a convolution, at whatever position, or a neuron of a fully connected layer.
    """
    with _watched(activity.activation_layers(model)) as watches:
        inference.predict(model, split, batch_size=batch_size, place=place)
    return [watch.row(name) for name, watch in watches.items()]


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


class _Watch:
    """A forward hook that keeps a tally of a layer's outputs."""

    def __init__(self, layer: nn.Module) -> None:
        self.kind = type(layer).__name__
        self.tally = activity.Tally(layer)
        self.units = 0

    def __call__(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        self.units = outputs.shape[1]
        self.tally.add(outputs)

    def row(self, name: str) -> Row:
        found = self.tally.activity()
        shares = {"saturated": found.saturated, "dead": found.dead}
        given = {key: "" if share is None else share for key, share in shares.items()}
        return {"layer": name, "activation": self.kind, "units": self.units, "mean": found.mean, **given}


@contextmanager
def _watched(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, _Watch]]:
    """Watch layers while the block runs."""
    watches = {name: _Watch(layer) for name, layer in layers.items()}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(watches[name]))
        yield watches
