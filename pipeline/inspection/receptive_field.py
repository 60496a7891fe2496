"""Receptive fields: the pixels of the image that each number of a feature map depends on.

They are measured, not derived from the kinds of layers: a NaN in the image makes each number NaN that depends on it,
through convolution, pooling, normalisation, activation and attention alike. A layer that replaces NaN hides what
lies before it; numbers that no NaN reaches count as depending on the whole image.
"""

import copy
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.config.section import IMAGE_SIDE
from pipeline.models.common import features
from pipeline.models.common.build import show_black_image

Spans = npt.NDArray[np.int64]
"""(L, 2): the first row (or column) of the image for each of a feature map's, and the one after the last."""

LARGER = 3 * IMAGE_SIDE // 2
ROWS, COLUMNS = 2, 3
"""The dimensions of images and feature maps (N, C, H, W)."""


@dataclass(frozen=True)
class Field:
    """The boxes of pixels that the numbers of an (H, W) feature map depend on, all of one size.

    Where they are known, boxes include the padding: they begin below 0 or end beyond the image.

    Attributes:
        rows: (H, 2) spans of the image's rows.
        columns: (W, 2) spans of its columns.
    """

    rows: Spans
    columns: Spans

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a box in pixels."""
        height, width = (int(end - start) for start, end in (self.rows[0], self.columns[0]))
        return height, width

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return first row, first column, and the row and column after the last; they may lie outside the image."""
        (top, bottom), (left, right) = self.rows[row].tolist(), self.columns[column].tolist()
        return top, left, bottom, right

    def is_whole(self, side: int) -> bool:
        """Say whether every number depends on the whole of an image of `side` px."""
        spans = np.concatenate([self.rows, self.columns])
        return bool((spans[:, 0] <= 0).all() and (spans[:, 1] >= side).all())


def fields(model: nn.Module) -> dict[str, Field]:
    """Measure the receptive field of each stage of a network (see `features.stages`), on a copy in evaluation mode.

    An image of the network's own size cuts boxes off at its edges. Where they begin and end beyond these is measured
    on an image that is half as high or wide again: where from its last rows and columns, which are far from the first
    edge, and where to from its first ones. It counts if it agrees with what the own size shows. A network that takes
    no other size, or scales its input, keeps the boxes as they are cut off, extended to the size of the largest.

    Raises:
        InspectionError: the network has no feature maps.
    """
    copied = copy.deepcopy(model).cpu().eval()
    shapes: dict[str, torch.Size] = {}
    parts = features.stages(copied)
    with features.watched(parts, lambda name, output: shapes.update({name: output.shape})):
        show_black_image(copied)
    rows, columns = (
        [_spans(copied, parts, dimension, length) for length in (IMAGE_SIDE, LARGER)] for dimension in (ROWS, COLUMNS)
    )
    return {
        name: Field(
            *(
                _full(own.get(name, np.tile([0, IMAGE_SIDE], (shape[dimension], 1))), larger.get(name))
                for dimension, (own, larger) in ((ROWS, rows), (COLUMNS, columns))
            )
        )
        for name, shape in shapes.items()
    }


@torch.no_grad()
def _spans(model: nn.Module, parts: Mapping[str, nn.Module], dimension: int, length: int) -> dict[str, Spans]:
    """Return the spans of each stage along one dimension of images that have `length` px along it.

    A stage that does not run, as the network refuses such images, is left out.
    """
    shape = [length, 3, IMAGE_SIDE, IMAGE_SIDE]
    shape[dimension] = length
    images = torch.zeros(shape)
    images.diagonal(dim1=0, dim2=dimension).fill_(math.nan)  # image i has NaN in its row (or column) i
    reached: dict[str, Tensor] = {}

    def note(name: str, output: Tensor) -> None:
        reached[name] = output.isnan().any(1).any(ROWS + COLUMNS - dimension - 1)

    with features.watched(parts, note), suppress(Exception):  # layers after the last stage may refuse the size, too
        model(images)
    return {name: _first_and_last(by_image) for name, by_image in reached.items()}


def _first_and_last(reached: Tensor) -> Spans:
    """Return the spans from which of I images reach which of L numbers: (I, L) bool to (L, 2)."""
    depends = reached | ~reached.any(0)  # on all, where none is known
    starts, ends = depends.int().argmax(0), len(depends) - depends.flip(0).int().argmax(0)
    spans: Spans = torch.stack([starts, ends], 1).numpy()
    return spans


def _full(own: Spans, larger: Spans | None) -> Spans:
    """Return the spans in an image of the network's own size as they are beyond its edges, too, all of one size."""
    if larger is not None and len(larger) > 1:
        stride, number = larger[-1, 0] - larger[-2, 0], np.arange(len(own))
        starts, ends = larger[-1, 0] + stride * (number - len(larger) + 1), larger[0, 1] + stride * number
        spans: Spans = np.stack([starts, ends], 1)
        if np.array_equal(spans.clip(0, IMAGE_SIDE), own):
            return spans
    size = np.diff(own).max()
    starts = np.where(own[:, 0] == 0, own[:, 1] - size, own[:, 0])
    return np.stack([starts, starts + size], 1)
