"""Loss, accuracy and speed of an epoch of training."""

import math
import time

import torch
from torch import Tensor


class Meter:
    """What the steps of an epoch gave, kept on the device: reading waits for the device, so that is done rarely."""

    SECONDS_BETWEEN_READINGS = 1.0

    def __init__(self, steps: int, place: torch.device) -> None:
        self.losses = torch.zeros(steps, dtype=torch.float32, device=place)
        self.correct = torch.zeros((), dtype=torch.int64, device=place)
        self.sizes: list[int] = []
        self.started = self.last_reading = time.perf_counter()

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Add a batch: its mean loss and how many images it got right."""
        self.losses[len(self.sizes)].copy_(loss)
        self.correct += correct
        self.sizes.append(images)

    def due(self) -> bool:
        """Tell whether a second has passed since this last said yes."""
        now = time.perf_counter()
        if now - self.last_reading < self.SECONDS_BETWEEN_READINGS:
            return False
        self.last_reading = now
        return True

    def read(self) -> tuple[float, float, int | None]:
        """Return the mean loss per image, the share classified right, and the first step whose loss is not finite.

        The share is in training mode and with augmentation.
        """
        losses = self.losses[: len(self.sizes)].tolist()  # summed here: not every device computes in float64
        images = sum(self.sizes)
        broken = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
        loss = sum(loss * size for loss, size in zip(losses, self.sizes, strict=True)) / images
        return loss, int(self.correct.item()) / images, broken

    @property
    def images_per_second(self) -> float:
        return sum(self.sizes) / (time.perf_counter() - self.started)
