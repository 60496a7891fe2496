"""Accuracy on corrupted images: noise, blur, low contrast, JPEG compression, rotation.

After Hendrycks & Dietterich 2019 (https://arxiv.org/abs/1903.12261): kinds of corruption in five severities each that
are not part of the training augmentation. Strengths are those of its CIFAR-10-C, made for images of 32 x 32 pixels;
rotation is not among its corruptions, and its angles are our own.
"""

import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pipeline.data import augment
from pipeline.data.dataset import Images, Split
from pipeline.evaluation import inference

Row = Mapping[str, Any]
"""One line of corruptions.csv: corruption, severity (1..5), strength, accuracy (0..1)."""


@dataclass(frozen=True)
class Corruption:
    """A corruption of images.

    Attributes:
        strengths: of the severities 1 to 5.
        measure: unit of the strengths, for display.
        apply: (N, 3, H, W) uint8 images, a strength and a random generator on the CPU to images of the same form on
            the same device. Random numbers are drawn image by image: the result does not depend on how images are
            batched, as long as they come in order.
    """

    strengths: tuple[float, ...]
    measure: str
    apply: Callable[[Tensor, float, torch.Generator], Tensor]


def noise(images: Tensor, deviation: float, rng: torch.Generator) -> Tensor:
    """Add normal noise to every pixel and channel; its standard deviation is a share of full scale (255)."""
    drawn = torch.randn(images.shape, generator=rng).to(images.device)
    return _grey_levels(images.float() + 255 * deviation * drawn)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian of `sigma` pixels, cut off at 4 sigma, beyond the edges the edge's own pixels."""
    count, channels, height, width = images.shape
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(images.device)
    planes = images.reshape(count * channels, 1, height, width).float()
    planes = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.reshape(1, 1, 1, -1)), kernel.reshape(1, 1, -1, 1))
    return _grey_levels(planes.reshape(images.shape))


def contrast(images: Tensor, share: float) -> Tensor:
    """Reduce each pixel's distance from its image's mean colour to a share of it."""
    values = images.float()
    mean = values.mean((2, 3), keepdim=True)
    return _grey_levels(mean + share * (values - mean))


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Compress with JPEG and decompress, by Pillow and its choices: colours at half the resolution (4:2:0).

    Args:
        quality: 1..100, on libjpeg's scale.
    """
    decoded = []
    for image in images.permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images.device)


def rotation(images: Tensor, degrees: float, rng: torch.Generator) -> Tensor:
    """Rotate each image about its centre, at random to the left or right."""
    turns = torch.randint(0, 2, (len(images),), generator=rng) * 2 - 1
    return rotate(images, degrees * turns)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate (N, 3, H, W) uint8 images by (N,) degrees, positive ones to the left; corners are filled by reflection.

    Values between pixels are interpolated linearly; reflections do not repeat the edge pixel, as in augmentation.
    """
    height, width = images.shape[2:]
    angle = torch.deg2rad(degrees.float()).to(images.device)[:, None, None]
    y = torch.arange(height, device=images.device)[None, :, None] - (height - 1) / 2
    x = torch.arange(width, device=images.device)[None, None, :] - (width - 1) / 2
    # Where each pixel comes from, in units in which the outermost pixels' centres are at -1 and 1.
    from_x = (x * angle.cos() - y * angle.sin()) / ((width - 1) / 2)
    from_y = (x * angle.sin() + y * angle.cos()) / ((height - 1) / 2)
    grid = torch.stack([from_x, from_y], -1)
    return _grey_levels(F.grid_sample(images.float(), grid, "bilinear", "reflection", align_corners=True))


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption((0.04, 0.06, 0.08, 0.09, 0.10), "standard deviation, share of full scale", noise),
    "blur": Corruption((0.4, 0.6, 0.7, 0.8, 1.0), "standard deviation, px", lambda images, by, _: blur(images, by)),
    "contrast": Corruption(
        (0.75, 0.5, 0.4, 0.3, 0.15), "share that is left", lambda images, by, _: contrast(images, by)
    ),
    "jpeg": Corruption((80, 65, 58, 50, 40), "quality", lambda images, by, _: jpeg(images, int(by))),
    "rotation": Corruption((5, 10, 15, 20, 30), "degrees", rotation),
}
"""Corruptions by name, in the order of tables and figures."""

EVALUATIONS = sum(len(corruption.strengths) for corruption in CORRUPTIONS.values())
"""Evaluations of all images that `measure` makes."""


def damaging(name: str, severity: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Return a function that applies a corruption of severity 1..5 to the batches of a split, in their order.

    All severities draw the same random numbers: more severe noise is the same noise, scaled.
    """
    corruption = CORRUPTIONS[name]
    rng = augment.generator(seed, 0, f"corruption {name}")
    return lambda images: corruption.apply(images, corruption.strengths[severity - 1], rng)


def examples(image: Images, seed: int) -> Images:
    """Return one (H, W, 3) uint8 image under every corruption: (corruptions, severities, H, W, 3) uint8."""
    plain = torch.from_numpy(image).permute(2, 0, 1)[None]
    damaged = [
        torch.cat([damaging(name, severity, seed)(plain) for severity in range(1, len(corruption.strengths) + 1)])
        for name, corruption in CORRUPTIONS.items()
    ]
    return torch.stack(damaged).permute(0, 1, 3, 4, 2).numpy()


def measure(
    model: nn.Module,
    split: Split,
    *,
    seed: int,
    batch_size: int,
    place: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Row]:
    """Return the accuracy on a split under every corruption at every severity.

    Args:
        seed: of the noise and of the directions of rotation.
        advance: called with 1 after each evaluation.
    """
    rows: list[Row] = []
    for name, corruption in CORRUPTIONS.items():
        for severity, strength in enumerate(corruption.strengths, start=1):
            change = damaging(name, severity, seed)
            probs = inference.predict(model, split, batch_size=batch_size, place=place, change=change)
            accuracy = inference.accuracy(probs, split.labels)
            rows.append({"corruption": name, "severity": severity, "strength": strength, "accuracy": accuracy})
            advance(1)
    return rows


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Return mean accuracies: over all rows ("test/corruption_accuracy") and over each corruption's severities."""
    means = {
        f"test/corruption_accuracy/{name}": _mean(row for row in rows if row["corruption"] == name)
        for name in CORRUPTIONS
    }
    return {"test/corruption_accuracy": _mean(rows), **means}


def _mean(rows: Iterable[Row]) -> float:
    return statistics.fmean(row["accuracy"] for row in rows)


def _grey_levels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
