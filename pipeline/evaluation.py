"""What a trained network does on images it has never seen: predictions, metrics with intervals, calibration."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats
import torch
from torch import Tensor, nn
from torchmetrics.functional import classification

from pipeline import augment, device
from pipeline.dataset import Split
from pipeline.loader import batches

Probs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reliability:
    """How often predictions of a given confidence are right; one entry for each of B bins of equal width.

    Attributes:
        edges: (B + 1,) from 0 to 1.
        counts: (B,) predictions whose confidence (largest probability) falls into the bin.
        confidence: (B,) their mean confidence; 0 where the bin is empty.
        accuracy: (B,) the share of them that is right; 0 where the bin is empty.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]


View = tuple[bool, int]
"""How an image is looked at: mirrored left and right or not, and by how many pixels it is moved down and right."""

PLAIN: View = (False, 0)
VIEWS: dict[str, dict[View, float]] = {
    "flip": {PLAIN: 0.5, (True, 0): 0.5},
    "six": {PLAIN: 0.25, (True, 0): 0.25} | {(mirror, by): 0.125 for mirror in (False, True) for by in (-1, 1)},
}
"""The views of each `evaluate.tta` with their weights, those of "six" as in cifar10-airbench (Jordan 2024)."""


@torch.inference_mode()
def predict(model: nn.Module, split: Split, *, batch_size: int, place: torch.device, view: View = PLAIN) -> Probs:
    """Return (N, classes) float32 probabilities for all images of a split, in their order, computed in float32."""
    device.prepare(place, deterministic=True)
    model = model.to(memory_format=torch.channels_last).to(place).eval()
    out = []
    for images, _ in batches(split, batch_size=batch_size, device=place):
        out.append(model(seen(images, view)).softmax(1).cpu())
    return torch.cat(out).numpy()


def predict_views(
    model: nn.Module, split: Split, probs: Probs, *, tta: str, share: float, batch_size: int, place: torch.device
) -> Probs:
    """Return (N, classes) probabilities averaged over the views of each image: test-time augmentation.

    Args:
        probs: those of the plain view.
        tta: a name in `VIEWS`.
        share: of the images, the least confident ones, which are looked at in all views; the others, of whose class
            further views hardly ever change anything, keep `probs`.
    """
    chosen = np.sort(np.argsort(probs.max(1), kind="stable")[: math.ceil(share * len(split))])
    part = Split(split.images[chosen], split.labels[chosen])
    mean = np.zeros_like(probs[chosen])
    for view, weight in VIEWS[tta].items():
        found = probs[chosen] if view == PLAIN else predict(model, part, batch_size=batch_size, place=place, view=view)
        mean += np.float32(weight) * found
    result = probs.copy()
    result[chosen] = mean
    return result


def seen(images: Tensor, view: View) -> Tensor:
    """Return (N, C, H, W) uint8 images as a view shows them; edges moved in are reflections, as in augmentation."""
    mirror, by = view
    if by:
        height, width = images.shape[2:]
        rows = augment.reflect(torch.arange(height, device=images.device) - by, height)
        columns = augment.reflect(torch.arange(width, device=images.device) - by, width)
        images = images[:, :, rows][..., columns]
    return images.flip(3) if mirror else images


def accuracy(probs: Probs, labels: npt.NDArray[np.uint8]) -> float:
    """Return the share of images whose largest probability is that of their class."""
    return float((probs.argmax(1) == labels).mean())


def metrics(probs: Probs, labels: npt.NDArray[np.uint8], classes: tuple[str, ...], *, bins: int) -> dict[str, Any]:
    """Return the metrics of one set of predictions under the names they have everywhere, e.g. "test/accuracy".

    Shares are fractions of 1. The interval of the accuracy is Wilson's, at 95 % confidence. The loss is the mean
    cross-entropy in nats; the calibration error is the expected one (Naeini et al. 2015) over `bins` bins.
    """
    predicted, target = torch.from_numpy(probs), torch.from_numpy(labels).long()
    count, number = len(labels), len(classes)
    correct = int((probs.argmax(1) == labels).sum())
    interval = scipy.stats.binomtest(correct, count).proportion_ci(0.95, method="wilson")
    top2 = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    groups = reliability(probs, labels, bins=bins)
    ece = (groups.counts / count) @ np.abs(groups.accuracy - groups.confidence)
    result: dict[str, Any] = {
        "test/images": count,
        "test/accuracy": correct / count,
        "test/accuracy_low": interval.low,
        "test/accuracy_high": interval.high,
        "test/accuracy_top2": float((top2 == labels[:, None]).any(1).mean()),
        "test/loss": float(-np.log(np.maximum(probs[np.arange(count), labels], 1e-38, dtype=np.float64)).mean()),
        "test/f1_macro": float(classification.multiclass_f1_score(predicted, target, number, average="macro")),
        "test/calibration_error": float(ece),
    }
    for name in ("precision", "recall", "f1_score"):
        score = getattr(classification, f"multiclass_{name}")(predicted, target, number, average="none")
        for label, value in zip(classes, score.tolist(), strict=True):
            result[f"test/{name.removesuffix('_score')}/{label}"] = value
    return result


def confusion(probs: Probs, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return (classes, classes) counts: row the true class, column the predicted one."""
    classes = probs.shape[1]
    matrix: Tensor = classification.multiclass_confusion_matrix(
        torch.from_numpy(probs), torch.from_numpy(labels).long(), classes
    )
    return matrix.numpy().astype(np.int64)


def reliability(probs: Probs, labels: npt.NDArray[np.uint8], *, bins: int) -> Reliability:
    """Group predictions by confidence into `bins` bins, lower edge excluded, upper edge included."""
    edges = np.linspace(0, 1, bins + 1)
    confidence = probs.max(1).astype(np.float64)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    divisor = np.maximum(counts, 1)
    return Reliability(
        edges,
        counts,
        np.bincount(index, confidence, minlength=bins) / divisor,
        np.bincount(index, probs.argmax(1) == labels, minlength=bins) / divisor,
    )


def table(probs: Probs, labels: npt.NDArray[np.uint8], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one row an image: its index in the test set, true and predicted class by name, and all probabilities."""
    names = np.array(classes)
    columns = {"index": np.arange(len(labels)), "label": names[labels], "predicted": names[probs.argmax(1)]}
    return pd.DataFrame(columns | {name: probs[:, i] for i, name in enumerate(classes)})
