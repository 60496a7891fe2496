"""The preview of the augmentation: images before and after it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.plotting import headline, saved, tile


def augmentations(
    path: Path, originals: npt.NDArray[np.uint8], epochs: npt.NDArray[np.uint8], names: Sequence[str], *, seed: int
) -> None:
    """Draw stored images and their augmented versions in the first epochs.

    Args:
        originals: (R, H, W, 3) uint8.
        epochs: (R, E, H, W, 3) uint8, the same images in epochs 1..E.
        names: the class of each row.
        seed: the `train.seed` of the augmentation.
    """
    rows, columns = epochs.shape[:2]
    with saved(path, (columns + 1.6, rows * 0.96 + 0.6)) as figure:
        axes = figure.subplots()
        images = np.concatenate([originals[:, None], epochs], axis=1).reshape(-1, *originals.shape[1:])
        lefts, tops = tile(axes, images, (rows, columns + 1), gap=(3, 3))
        axes.xaxis.tick_top()
        axes.set_xticks(lefts, ["on disk", *(f"epoch {number}" for number in range(1, columns + 1))], fontsize=8)
        axes.set_yticks(tops, names, fontsize=8)
        headline(figure, f"Augmented training images (train.seed {seed})")
