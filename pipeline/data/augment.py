"""Augmentation of image batches: draw random numbers on the CPU, then apply them on the device.

`draw` draws the numbers of a whole epoch on the CPU from (seed, epoch), so that every device trains on the same
images. `apply` is a pure function of images and these numbers; one gather mirrors and shifts.
"""

import hashlib
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pipeline.config.schema import AugmentParams


@dataclass(frozen=True)
class Decisions:
    """Augmentation parameters of N images.

    Attributes:
        flip: (N,) bool, whether to mirror left and right.
        shift: (N, 2) int64, pixels by which the content moves down and right (negative: up and left).
        cutout: (N, 2) int64, row and column of the upper left corner of the erased square; may lie outside the image.
        brightness: (N,) float32, offset as a share of full scale, -1..1.
        contrast: (N,) float32, factor on the deviation from the image's mean, 0..2.
    """

    flip: Tensor
    shift: Tensor
    cutout: Tensor
    brightness: Tensor
    contrast: Tensor

    def to(self, device: torch.device) -> "Decisions":
        """Copy to a device."""
        return Decisions(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, index: slice | Tensor) -> "Decisions":
        return Decisions(*(getattr(self, field.name)[index] for field in fields(self)))


def draw(params: AugmentParams, images: int, side: int, *, seed: int, epoch: int) -> Decisions:
    """Draw the augmentation of `images` images of `side` x `side` pixels in one epoch (counted from 0).

    Alternating flip (Jordan 2024, https://arxiv.org/abs/2404.00498): a fixed random half of the images is mirrored
    in even epochs, the other half in odd ones, so that two epochs show every image in both orientations.
    """
    rng = generator(seed, epoch, "augment")
    if params.flip == "alternating":
        half = torch.rand(images, generator=generator(seed, 0, "alternating flip")) < 0.5
        flip = half ^ (epoch % 2 == 1)
    else:
        flip = torch.rand(images, generator=rng) < (0.5 if params.flip == "random" else 0.0)
    shift = torch.randint(-params.translate, params.translate + 1, (images, 2), generator=rng)
    # The square's centre is uniform over the image, as in DeVries & Taylor 2017 (https://arxiv.org/abs/1708.04552).
    corner = torch.randint(0, side, (images, 2), generator=rng) - params.cutout // 2
    brightness = params.brightness * (2 * torch.rand(images, generator=rng) - 1)
    contrast = 1 + params.contrast * (2 * torch.rand(images, generator=rng) - 1)
    return Decisions(flip, shift, corner, brightness, contrast)


def apply(params: AugmentParams, images: Tensor, decisions: Decisions, fill: Tensor) -> Tensor:
    """Return augmented copies of images.

    Args:
        params: operations that are off are skipped.
        images: (N, H, W, C) uint8.
        decisions: for these N images, on the same device.
        fill: (C,) uint8, colour of the erased square.

    Returns:
        (N, H, W, C) uint8. Borders are filled by reflection without repeating the edge pixel ("reflect" in torch and
        numpy); colours are rounded and clipped to 0..255.
    """
    count, height, width, channels = images.shape
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    if params.translate or params.flip != "none":
        y = reflect(rows[None, :] - decisions.shift[:, :1], height)
        x = reflect(columns[None, :] - decisions.shift[:, 1:], width)
        x = torch.where(decisions.flip[:, None], width - 1 - x, x)
        pixels = (y[:, :, None] * width + x[:, None, :]).reshape(count, -1, 1).expand(-1, -1, channels)
        images = images.reshape(count, -1, channels).gather(1, pixels).reshape(images.shape)
    if params.contrast or params.brightness:
        values = images.float()
        mean = values.mean(dim=(1, 2, 3), keepdim=True)
        values = (values - mean) * decisions.contrast[:, None, None, None] + mean
        values = values + 255 * decisions.brightness[:, None, None, None]
        images = values.round().clamp(0, 255).to(torch.uint8)
    if params.cutout:
        y, x = rows[None, :] - decisions.cutout[:, :1], columns[None, :] - decisions.cutout[:, 1:]
        inside_y, inside_x = (y >= 0) & (y < params.cutout), (x >= 0) & (x < params.cutout)
        images = torch.where((inside_y[:, :, None] & inside_x[:, None, :])[..., None], fill, images)
    return images


def reflect(index: Tensor, size: int) -> Tensor:
    """Map positions up to size - 1 beyond either edge to their mirror image inside."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Return the CPU random generator of one purpose in one epoch; no two (seed, epoch, purpose) share a stream."""
    digest = hashlib.sha256(f"{purpose} {seed} {epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
