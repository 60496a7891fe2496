"""Accuracy and consistency of predictions when images are shifted by a few pixels.

Convolutions are translation-equivariant; pooling, strides, edges and fully connected layers keep a network from
being invariant. Consistency is the share of images whose predicted class does not change (Zhang 2019,
https://arxiv.org/abs/1904.11486, where the shifts are random).
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.data.dataset import Split
from pipeline.evaluation import inference
from pipeline.evaluation.inference import Probs

Fill = Literal["reflect", "black"]
FILLS: tuple[Fill, ...] = ("reflect", "black")
"""How the edges are filled: by reflection, or with black pixels, grey level 0 (which is not the mean)."""

Row = Mapping[str, Any]
"""One line of shifts.csv: fill, dx and dy (px to the right and down), accuracy, consistency (0..1)."""


def offsets(largest: int, step: int) -> list[int]:
    """Return the shifts along one axis: multiples of `step` from -largest to largest, which is one of them, in px."""
    return list(range(-largest, largest + 1, step))


def evaluations(largest: int, step: int) -> int:
    """Return the evaluations of all images that `measure` makes; the unshifted ones are known already."""
    return len(FILLS) * (len(offsets(largest, step)) ** 2 - 1)


def shifted(images: Tensor, dx: int, dy: int, fill: Fill) -> Tensor:
    """Return (N, C, H, W) images with their content moved by dx px to the right and dy px down (negative: left, up).

    Shifts are smaller than H and W. Reflections do not repeat the edge pixel.
    """
    result = inference.moved(images, dy, dx)
    if fill == "black":
        height, width = images.shape[2:]
        result[:, :, : max(dy, 0)] = 0
        result[:, :, height + min(dy, 0) :] = 0
        result[..., : max(dx, 0)] = 0
        result[..., width + min(dx, 0) :] = 0
    return result


def measure(
    model: nn.Module,
    split: Split,
    unmoved: Probs,
    *,
    largest: int,
    step: int,
    batch_size: int,
    place: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Row]:
    """Return accuracy and consistency for every shift of the grid of `offsets`, with every fill.

    Args:
        unmoved: (N, classes) probabilities of the images as they are.
        advance: called with 1 after each evaluation.
    """
    rows: list[Row] = []
    along = offsets(largest, step)
    for fill in FILLS:
        for dy in along:
            for dx in along:
                probs = unmoved
                if dx or dy:
                    change = partial(shifted, dx=dx, dy=dy, fill=fill)
                    probs = inference.predict(model, split, batch_size=batch_size, place=place, change=change)
                    advance(1)
                measures = {
                    "accuracy": inference.accuracy(probs, split.labels),
                    "consistency": float((probs.argmax(1) == unmoved.argmax(1)).mean()),
                }
                rows.append({"fill": fill, "dx": dx, "dy": dy, **measures})
    return rows


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Return means over all shifts but the one by nothing: of both fills ("test/shift_accuracy") and of each."""
    moved = [row for row in rows if row["dx"] or row["dy"]]
    result: dict[str, float] = {}
    for name in ("accuracy", "consistency"):
        result[f"test/shift_{name}"] = statistics.fmean(row[name] for row in moved)
        for fill in FILLS:
            values = (row[name] for row in moved if row["fill"] == fill)
            result[f"test/shift_{name}/{fill}"] = statistics.fmean(values)
    return result
