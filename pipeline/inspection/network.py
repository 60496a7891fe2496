"""A trained network with its test images and predictions, as most measures and figures need them."""

from dataclasses import dataclass

import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.evaluation import inference
from pipeline.evaluation.inference import Probs


@dataclass(frozen=True)
class Network:
    """A trained network, the test images that it is inspected with, and its predictions.

    Attributes:
        model: on `place`, in evaluation mode.
        classes: their names.
        probs: (N, C), of the N images of `test`.
        batch_size: images at a time, which bounds memory.
        seed: of all random choices of the inspection.
    """

    model: nn.Module
    classes: tuple[str, ...]
    test: Split
    probs: Probs
    batch_size: int
    place: torch.device
    seed: int

    @property
    def accuracy(self) -> float:
        """Accuracy (0..1) on the test images."""
        return inference.accuracy(self.probs, self.test.labels)
