"""The subject of an explanation and its sections."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.data.dataset import Dataset, Images, Split
from pipeline.evaluation.inference import Probs
from pipeline.inspection.network import Network
from pipeline.models.common.saved import Saved

BATCH_SIZE = 250


@dataclass(frozen=True)
class Subject:
    """The image to explain, its network and the data.

    Attributes:
        name: of the image, e.g. "test image 0".
        image: (32, 32, 3) uint8.
        label: its class, if known.
        probs: (C,) predicted for it.
        test_probs: (N, C) predicted for the test split.
        saved: the network, on `place`.
        data: train and test split.
    """

    name: str
    image: Images
    label: int | None
    probs: Probs
    test_probs: Probs
    saved: Saved
    data: Dataset
    place: torch.device
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.saved.metadata.classes

    @property
    def network(self) -> Network:
        """The network with the test split and its predictions."""
        test, probs = self.data["test"], self.test_probs
        return Network(self.saved.model, self.classes, test, probs, BATCH_SIZE, self.place, self.seed)

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return int(self.probs.argmax())

    @property
    def rival(self) -> int:
        """The label, or if that is the predicted class or unknown, the second most probable class."""
        if self.label is not None and self.label != self.predicted:
            return self.label
        return int(np.argsort(-self.probs, kind="stable")[1])


@dataclass(frozen=True)
class Section:
    """A section of the page: a figure, its caption, and findings of a line each."""

    title: str
    caption: str
    picture: Path
    findings: tuple[str, ...]


def first(split: Split, count: int) -> Split:
    """Return the first images of a split, all if it has fewer than `count`."""
    return Split(split.images[:count], split.labels[:count])
