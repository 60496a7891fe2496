"""Figures of feature maps: of one image, and of the image patches that activate channels most."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from pipeline.inspection.feature_maps import Exciting, FeatureMaps, seen
from pipeline.inspection.receptive_field import Field
from pipeline.plotting import headline, saved, tiled

CHANNELS = 8
MOSAICS = 6
SMALLEST = 12
"""Pixels of a patch in a mosaic at least, so that a gap of one pixel between patches is narrow."""


def by_depth(path: Path, image: npt.NDArray[np.uint8], found: Sequence[FeatureMaps]) -> None:
    """Draw an image and below it the strongest channels of each stage's output, stage by stage.

    Args:
        image: (H, W, 3) uint8.
        found: as `feature_maps.feature_maps` returns it.
    """
    rows = len(found)
    with saved(path, (10, 1.15 * rows + 0.9)) as figure:
        panels = figure.subplots(rows, CHANNELS + 1, squeeze=False)
        for axes in panels.flat:
            axes.axis("off")
        panels[0, 0].imshow(image, interpolation="nearest")
        panels[0, 0].set_title("the image", loc="center", fontsize=8)
        for row, stage in zip(panels, found, strict=True):
            for axes, channel in zip(row[1:], stage.strongest(CHANNELS), strict=False):
                axes.imshow(stage.maps[channel], cmap="gray", interpolation="nearest")
                axes.set_title(f"channel {channel}", loc="center", fontsize=7, pad=2)
            channels, height, width = stage.maps.shape
            _name(
                row[1],
                f"{stage.name}\n{channels} maps of\n{height} x {width}\n{_sees(stage.field, len(image))}",
            )
        headline(
            figure,
            f"Feature maps by layer, first to last: the {CHANNELS} channels of the highest mean.\n"
            "Black is the smallest value of a map, white the largest",
        )


def patches_by_depth(path: Path, images: npt.NDArray[np.uint8], found: Sequence[Exciting]) -> None:
    """Draw, for some channels of each stage, the image patches that activate them most.

    Args:
        images: (N, S, S, 3) uint8, the split that `found` is of.
        found: as `feature_maps.exciting` returns it.
    """
    rows = len(found)
    with saved(path, (10, 1.55 * rows + 0.8)) as figure:
        panels = figure.subplots(rows, MOSAICS, squeeze=False)
        for axes in panels.flat:
            axes.axis("off")
        for row, stage in zip(panels, found, strict=True):
            for axes, channel in zip(row, stage.most_distinct(MOSAICS), strict=False):
                axes.imshow(mosaic(images, stage, int(channel)), interpolation="nearest")
                axes.set_title(f"channel {channel}", loc="center", fontsize=7, pad=2)
            _name(row[0], f"{stage.name}\n{_sees(stage.field, images.shape[1])}")
        count = found[0].images.shape[1]
        headline(
            figure,
            f"The {count} patches that activate a channel most, cropped to its receptive field (pale grey: outside).\n"
            f"Of each layer the {MOSAICS} channels whose {count} maxima exceed the average most",
        )


def mosaic(images: npt.NDArray[np.uint8], stage: Exciting, channel: int) -> npt.NDArray[np.uint8]:
    """Return the patches that activate one channel most as one picture, row by row, the strongest first.

    Returns:
        (S, S, 3) uint8; small parts are enlarged by a whole number, the gaps between them are white.
    """
    patches = [
        seen(images[image], stage.field.box(*place))
        for image, place in zip(stage.images[channel], stage.places[channel], strict=True)
    ]
    scale = max(1, SMALLEST // len(patches[0]))
    enlarged = np.stack(patches).repeat(scale, 1).repeat(scale, 2)
    columns = math.ceil(math.sqrt(len(enlarged)))
    gap = max(1, enlarged.shape[1] // 12)
    return tiled(enlarged, (columns, columns), gap=(gap, gap))


def _sees(field: Field, side: int) -> str:
    if field.is_whole(side):
        return "receptive field:\nwhole image"
    height, width = field.size
    return f"receptive field\n{height} x {width} px"


def _name(axes: Axes, text: str) -> None:
    """Write a row's name to the left of its first picture."""
    axes.annotate(text, (0, 0.5), (-6, 0), "axes fraction", "offset points", ha="right", va="center", fontsize=8)
