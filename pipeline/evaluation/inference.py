"""Predict the class probabilities of images, from one view or averaged over several (test-time augmentation)."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.config.schema import EvaluateParams
from pipeline.data import augment
from pipeline.data.dataset import Split
from pipeline.data.loader import batches
from pipeline.models.common import numerics

Probs = npt.NDArray[np.float32]
"""(N, classes) probabilities."""

View = tuple[bool, int]
"""A transformation of an image: mirrored left and right or not, and shifted down and right by some pixels."""

PLAIN: View = (False, 0)
VIEWS: dict[str, dict[View, float]] = {
    "flip": {PLAIN: 0.5, (True, 0): 0.5},
    "six": {PLAIN: 0.25, (True, 0): 0.25} | {(mirror, by): 0.125 for mirror in (False, True) for by in (-1, 1)},
}
"""The views of each `evaluate.tta` with their weights, those of "six" as in cifar10-airbench (Jordan 2024)."""


@torch.inference_mode()
def predict(
    model: nn.Module,
    split: Split,
    *,
    batch_size: int,
    place: torch.device,
    change: Callable[[Tensor], Tensor] = lambda images: images,
) -> Probs:
    """Return (N, classes) float32 probabilities for all images of a split, in their order, computed in float32.

    Args:
        change: what each batch of (B, 3, H, W) uint8 images on the device becomes before the network sees it.
    """
    model = numerics.ready(model, place)
    out = []
    for images, _ in batches(split, batch_size=batch_size, device=place):
        out.append(model(change(images)).softmax(1).cpu())
    return torch.cat(out).numpy()


def accuracy(probs: Probs, labels: npt.NDArray[np.uint8]) -> float:
    """Return the share of images whose largest probability is that of their class."""
    return float((probs.argmax(1) == labels).mean())


def predict_views(model: nn.Module, split: Split, probs: Probs, options: EvaluateParams, place: torch.device) -> Probs:
    """Return (N, classes) probabilities averaged over the views of each image: test-time augmentation.

    Args:
        probs: those of the plain view.
        options: `tta`, a name in `VIEWS`, and `batch_size`.
    """
    mean = np.zeros_like(probs)
    for view, weight in VIEWS[options.tta].items():
        found = probs
        if view != PLAIN:
            look = partial(seen, view=view)
            found = predict(model, split, batch_size=options.batch_size, place=place, change=look)
        mean += np.float32(weight) * found
    return mean


def seen(images: Tensor, view: View) -> Tensor:
    """Return (N, C, H, W) uint8 images transformed to a view; edges are filled by reflection, as in augmentation."""
    mirror, by = view
    images = moved(images, by, by) if by else images
    return images.flip(3) if mirror else images


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """Return (N, C, H, W) images whose content is moved by less than H and W pixels (negative: up, left).

    Edges moved in are reflections that do not repeat the edge pixel.
    """
    height, width = images.shape[2:]
    rows = augment.reflect(torch.arange(height, device=images.device) - down, height)
    columns = augment.reflect(torch.arange(width, device=images.device) - right, width)
    return images[:, :, rows][..., columns]
