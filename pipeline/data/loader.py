"""Data loader that keeps a split on the device as uint8 and gathers, augments and resizes batches there."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.schema import AugmentParams
from pipeline.data import augment
from pipeline.data.dataset import Split


class TrainLoader:
    """Loader of shuffled, augmented batches, which depend on (seed, epoch), and on `losses` if `hardest` is below 1.

    With `hardest` below 1 each epoch after the first consists of that share of the images, those with the highest last
    recorded loss: images with a small loss have small gradients. (Jiang et al. 2019, https://arxiv.org/abs/1910.00762,
    select by the current loss; the recorded one needs no extra forward pass.)

    Attributes:
        side: of the images in the current epoch, in pixels.
        losses: (N,) float32 on the device, the last recorded loss of each image; infinite before the first.
    """

    def __init__(
        self,
        split: Split,
        params: AugmentParams,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        mean: tuple[float, ...],
        hardest: float = 1.0,
    ) -> None:
        self.params = params
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device).long()
        self.fill = torch.tensor(mean).round().to(torch.uint8).to(device)
        self.side = self.images.shape[1]
        self.hard = math.ceil(hardest * len(split))
        self.losses = torch.full((len(split),), math.inf, device=device)
        self.decisions = self._drawn(0).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def count(self, epoch: int) -> int:
        """Return the number of images of an epoch (counted from 0)."""
        return self.hard if epoch else len(self)

    def steps(self, epoch: int) -> int:
        """Return the number of batches of an epoch (counted from 0)."""
        return -(-self.count(epoch) // self.batch_size)

    def steps_before(self, epoch: int) -> int:
        """Return the number of batches of all epochs before this one."""
        return sum(map(self.steps, range(epoch)))

    def begin(self, epoch: int, side: int | None = None) -> Sequence[Tensor]:
        """Start an epoch (counted from 0) and return the indices (B,) int64 of its batches, for `batch`.

        There are ceil(count / batch_size) batches whose sizes differ by at most one, so that there is no small last
        batch with noisy batch statistics.

        Args:
            side: of the images in the batches; None keeps the stored size.
        """
        self.side = side or self.images.shape[1]
        drawn = self._drawn(epoch)
        for field in fields(drawn):  # in place: a captured CUDA graph reads from the same memory
            getattr(self.decisions, field.name).copy_(getattr(drawn, field.name))
        count = self.count(epoch)
        order = torch.randperm(count, generator=augment.generator(self.seed, epoch, "order")).to(self.device)
        if count < len(self):
            order = self.losses.sort(descending=True, stable=True).indices[order]
        return order.tensor_split(self.steps(epoch))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return augmented images of the current epoch with their labels (B,) int64.

        The images are (B, 3, side, side) uint8, channels last in memory.
        """
        images = self._augmented(indices, self.decisions).permute(0, 3, 1, 2)
        return (images if self.side == images.shape[-1] else resize(images, self.side)), self.labels[indices]

    def epoch(self, epoch: int, side: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch (counted from 0): every image at most once."""
        for indices in self.begin(epoch, side):
            yield self.batch(indices)

    def preview(self, epoch: int, indices: Tensor) -> Tensor:
        """Return the augmented images of an epoch (counted from 0) for indices (B,) int64: (B, H, W, 3) uint8."""
        return self._augmented(indices, self._drawn(epoch).to(self.device))

    def _drawn(self, epoch: int) -> augment.Decisions:
        return augment.draw(self.params, len(self), self.images.shape[1], seed=self.seed, epoch=epoch)

    def _augmented(self, indices: Tensor, decisions: augment.Decisions) -> Tensor:
        return augment.apply(self.params, self.images[indices], decisions[indices], self.fill)


def resize(images: Tensor, side: int) -> Tensor:
    """Return (N, C, H, W) uint8 images resized to another side: bilinear interpolation with antialiasing, rounded.

    On CPUs the uint8 kernel takes a fifth of the time of the float32 one; results may differ by one grey level.
    """
    size = (side, side)
    if images.device.type == "cpu":
        return F.interpolate(images, size, mode="bilinear", antialias=True)
    resized = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def batches(split: Split, *, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of a split in order, without augmentation, in the layout of `TrainLoader.batch`."""
    for start in range(0, len(split), batch_size):
        images = torch.from_numpy(split.images[start : start + batch_size]).to(device)
        labels = torch.from_numpy(split.labels[start : start + batch_size]).to(device).long()
        yield images.permute(0, 3, 1, 2), labels
