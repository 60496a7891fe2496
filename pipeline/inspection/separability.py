"""How well each stage of a network separates the classes: linear probes by depth.

After Alain & Bengio 2016 (https://arxiv.org/abs/1610.01644), who train a linear classifier on what each layer passes
on. Here the classifier is Fisher's linear discriminant analysis, which has a closed form and no hyperparameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

from pipeline.data.dataset import Split
from pipeline.data.loader import batches
from pipeline.models.common import features, numerics

Features = npt.NDArray[np.float32]
"""(N, C): for each image the mean of each channel over its feature map."""


@dataclass(frozen=True)
class Separability:
    """One stage: its name, its channels, and a linear probe's accuracy (0..1) on held-out images."""

    name: str
    channels: int
    accuracy: float


@torch.inference_mode()
def pooled(model: nn.Module, split: Split, *, batch_size: int, place: torch.device) -> Mapping[str, Features]:
    """Return the features of every stage for all images of a split, in the order of depth.

    Raises:
        InspectionError: the network has no feature maps.
    """
    model = numerics.ready(model, place)
    parts = features.stages(model)
    found: dict[str, list[Tensor]] = {name: [] for name in parts}

    def keep(name: str, output: Tensor) -> None:
        found[name].append(output.float().mean((2, 3)).cpu())

    with features.watched(parts, keep):
        for images, _ in batches(split, batch_size=batch_size, device=place):
            model(images)
    return {name: torch.cat(values).numpy() for name, values in found.items()}


def measure(
    model: nn.Module, fitted: Split, held_out: Split, *, batch_size: int, place: torch.device
) -> list[Separability]:
    """Fit a linear probe to each stage's features and measure its accuracy on held-out images.

    The covariance within classes is shrunk after Ledoit & Wolf 2004 (https://doi.org/10.1016/S0047-259X(03)00096-4),
    so that dead or duplicate channels do no harm.

    Args:
        fitted: images that the probes are fitted to; not the training images, which the network has memorised.
        held_out: images that accuracy is measured on.

    Returns:
        One entry for each stage, in the order of depth.

    Raises:
        InspectionError: the network has no feature maps.
    """
    known, new = (pooled(model, split, batch_size=batch_size, place=place) for split in (fitted, held_out))
    return [
        Separability(name, known[name].shape[1], _probe(known[name], fitted, new[name], held_out)) for name in known
    ]


def _probe(known: Features, fitted: Split, new: Features, held_out: Split) -> float:
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    probe.fit(known.astype(np.float64), fitted.labels)
    return float((probe.predict(new.astype(np.float64)) == held_out.labels).mean())
