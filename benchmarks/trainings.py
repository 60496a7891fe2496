"""Trainings to be measured: the real step on random images, at several sizes of what a training grows with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.config.schema import Params, TrainParams
from pipeline.config.section import CLASSES, IMAGE_SIDE
from pipeline.data.dataset import Dataset, Metadata, Split
from pipeline.training import loop

WIDTHS = (32, 64, 128)
"""Channels at width 1; a resnet's are those of params.yaml."""
IMAGES = (1000, 2000, 4000, 8000)
FACTORS = (0.5, 1, 2, 4)
SIDES = (16, 20, 24, 32)
EPOCHS = (1, 2, 3, 4)
BATCHES = (128, 256, 512, 1024)
SIZES = 4

FITTED_IMAGES = 100
"""That a whitening layer is computed from: a step takes as much time and memory with any."""


@dataclass(frozen=True)
class Case:
    """A training of one size."""

    params: Params
    images: int

    @property
    def train(self) -> TrainParams:
        return self.params.train

    def network(self, place: torch.device) -> nn.Module:
        """Return the untrained network on a device."""
        return loop.initial_model(self.params.model, self.train, noise(FITTED_IMAGES), place)


@dataclass(frozen=True)
class Quantity:
    """What a training grows with.

    Attributes:
        label: with its unit, for an axis.
        expected: exponents between which the growth of seconds is expected.
        cases: by size, ascending.
    """

    label: str
    expected: tuple[float, float]
    cases: Mapping[float, Case]


class Training:
    """What `training.train` does without validation, to be done again and again.

    Attributes:
        steps: of all epochs.
    """

    def __init__(self, case: Case, place: torch.device) -> None:
        self.epochs = case.train.epochs
        train = case.train.model_copy(update={"device": str(place)})
        self.step, _ = loop.set_up(case.params.model_copy(update={"train": train}), noise(case.images))
        self.steps = self.step.loader.steps_before(self.epochs)

    def prepare(self) -> None:
        """Train until a GPU's steps are recorded; a processor has nothing to record."""
        before = -1.0
        while self.step.graphs is not None and self.step.preparation_seconds > before:
            before = self.step.preparation_seconds
            self()

    def __call__(self) -> None:
        """Train for all epochs, from the weights that the last call left.

        Raises:
            TrainingError: the loss is not finite, so that nothing measured here is like a training.
        """
        for epoch in range(self.epochs):
            loop.train_epoch(self.step, None, epoch)


def base(params: Params, arch: str, images: int, *, width: float = 1, **changes: object) -> Case:
    """Return one epoch on images of full side with an uncompiled network.

    Args:
        params: what is not said here.
        arch: "cnn", "resnet" or "speednet".
        width: factor on the channels.
        changes: to `train`.
    """
    section = getattr(params.model, arch)
    if arch == "resnet":
        section = section.model_copy(update={"width": round(width * section.width)})
    else:
        section = section.model_copy(update={"widths": tuple(round(width * channels) for channels in WIDTHS)})
    train = {"epochs": 1, "resolutions": (IMAGE_SIDE,), "compile": False} | changes
    changed = {
        "model": params.model.model_copy(update={"arch": arch, arch: section}),
        "train": params.train.model_copy(update=train),
    }
    return Case(params.model_copy(update=changed), images)


def quantities(params: Params, arch: str, scale: float, sizes: int = SIZES) -> dict[str, Quantity]:
    """Return what is varied around one training.

    Args:
        params: what is not varied.
        arch: "cnn", "resnet" or "speednet"; a cnn takes images of one side only, which is then not varied.
        scale: factor on the numbers of images.
        sizes: how many of each quantity, the smallest, 2 to 4.
    """

    def case(images: float, *, width: float = 1, **changes: object) -> Case:
        return base(params, arch, max(CLASSES, round(images * scale)), width=width, **changes)

    channels = WIDTHS if arch != "resnet" else tuple(factor * params.model.resnet.width for factor in (1, 2, 4))
    batches = BATCHES[:sizes]
    whole = max(2048, batches[-1] / scale)  # images: enough for the largest batch
    by_images = [case(images) for images in IMAGES[:sizes]]
    found = {
        "images": Quantity("training images", (1, 1), {one.images: one for one in by_images}),
        "width": Quantity(
            f"width, times {'-'.join(map(str, channels))} channels",
            (1, 2),
            {width: case(1000, width=width) for width in FACTORS[:sizes]},
        ),
        "resolution": Quantity(
            "side of the images, px", (2, 2), {side: case(2000, resolutions=(side,)) for side in SIDES[:sizes]}
        ),
        "epochs": Quantity("epochs", (1, 1), {epochs: case(1000, epochs=epochs) for epochs in EPOCHS[:sizes]}),
        "batch": Quantity("batch size, images", (0, 0), {size: case(whole, batch_size=size) for size in batches}),
    }
    if arch == "cnn":
        del found["resolution"]
    return found


def noise(images: int) -> Dataset:
    """Return a training split of random pixels and classes: how fast a step is does not depend on them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, images, dtype=np.uint8)
    classes = tuple(map(str, range(CLASSES)))
    return Dataset(Metadata("noise", "", classes, (127.5,) * 3, (73.9,) * 3, images), {"train": Split(pixels, labels)})
