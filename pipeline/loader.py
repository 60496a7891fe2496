"""The whole split on the device as uint8; batches are gathered from it, shuffled and augmented there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline import augment
from pipeline.dataset import Split
from pipeline.params import AugmentParams


class TrainLoader:
    """Shuffled, augmented batches that depend on (seed, epoch) alone: an epoch can be repeated or skipped at will."""

    def __init__(
        self,
        split: Split,
        params: AugmentParams,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        mean: tuple[float, ...],
    ) -> None:
        self.params = params
        self.seed = seed
        self.device = device
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device).long()
        self.fill = torch.tensor(mean).round().to(torch.uint8).to(device)
        self.steps = -(-len(split) // batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once as (B, 3, H, W) uint8 (channels last in memory) with its label (B,) int64.

        The epoch (counted from 0) is cut into ceil(N / batch_size) batches whose sizes differ by at most one, so
        that there is no small last batch, whose batch statistics would be noisy.
        """
        decisions = self._decisions(epoch).to(self.device)
        order = torch.randperm(len(self.labels), generator=augment.generator(self.seed, epoch, "order"))
        for indices in order.to(self.device).tensor_split(self.steps):
            yield self._augmented(indices, decisions).permute(0, 3, 1, 2), self.labels[indices]

    def preview(self, epoch: int, indices: Tensor) -> Tensor:
        """Return what an epoch (counted from 0) feeds for some images: (B,) int64 to (B, H, W, 3) uint8."""
        return self._augmented(indices, self._decisions(epoch).to(self.device))

    def _decisions(self, epoch: int) -> augment.Decisions:
        return augment.draw(self.params, len(self.labels), self.images.shape[1], seed=self.seed, epoch=epoch)

    def _augmented(self, indices: Tensor, decisions: augment.Decisions) -> Tensor:
        return augment.apply(self.params, self.images[indices], decisions[indices], self.fill)


def batches(split: Split, *, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a split unchanged, in order, in the layout of `TrainLoader.epoch`; the last batch may be smaller."""
    for start in range(0, len(split), batch_size):
        images = torch.from_numpy(split.images[start : start + batch_size]).to(device)
        labels = torch.from_numpy(split.labels[start : start + batch_size]).to(device).long()
        yield images.permute(0, 3, 1, 2), labels
