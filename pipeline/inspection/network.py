"""A trained network and what it is looked at with: what most measures and pictures of it need."""

from dataclasses import dataclass

import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.evaluation import inference
from pipeline.evaluation.inference import Probs


@dataclass(frozen=True)
class Network:
    """A trained network, the test images that it is looked at with, and what it says of them.

    Attributes:
        model: on `place`, in evaluation mode.
        classes: their names.
        probs: (N, C), of the N images of `test`.
        batch_size: of images, by which memory is bounded.
        seed: of all that is random in looking at it.
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
        """The share (0..1) of the test images that it gets right."""
        return inference.accuracy(self.probs, self.test.labels)
