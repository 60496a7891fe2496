"""Metrics of predictions: accuracy with its interval, calibration, precision and recall, the confusion matrix.

In numpy: importing scipy and scikit-learn, which the tests compare these with, would lengthen the evaluate stage by
two seconds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.inference import Probs

CALIBRATION_BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017 (https://arxiv.org/abs/1706.04599)."""


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

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance between confidence and accuracy over all predictions."""
        return float((self.counts / self.counts.sum()) @ np.abs(self.accuracy - self.confidence))


def metrics(probs: Probs, labels: npt.NDArray[np.uint8]) -> dict[str, float | int]:
    """Return the metrics of one set of predictions under the names they have everywhere, e.g. "test/accuracy".

    Shares are fractions of 1. The interval of the accuracy is Wilson's, at 95 % confidence. The loss is the mean
    cross-entropy in nats; the calibration error is the expected one (Naeini et al. 2015) over `CALIBRATION_BINS` bins.
    """
    count = len(labels)
    correct = int((probs.argmax(1) == labels).sum())
    low, high = wilson(correct, count)
    top2 = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    return {
        "test/images": count,
        "test/accuracy": correct / count,
        "test/accuracy_low": low,
        "test/accuracy_high": high,
        "test/accuracy_top2": float((top2 == labels[:, None]).any(1).mean()),
        "test/loss": float(-np.log(np.maximum(probs[np.arange(count), labels], 1e-38, dtype=np.float64)).mean()),
        "test/f1_macro": float(_by_class(probs, labels)["f1"].mean()),
        "test/calibration_error": reliability(probs, labels).error,
    }


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (https://doi.org/10.1080/01621459.1927.10502953)."""
    z = NormalDist().inv_cdf(0.975)
    share, scale = successes / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def by_class(probs: Probs, labels: npt.NDArray[np.uint8], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one row for each class: its name, number of images, precision, recall and F1, 0 where undefined."""
    images = np.bincount(labels, minlength=len(classes)).tolist()
    scores = {name: values.tolist() for name, values in _by_class(probs, labels).items()}
    return [
        {"class": name, "images": images[index], **{score: values[index] for score, values in scores.items()}}
        for index, name in enumerate(classes)
    ]


def _by_class(probs: Probs, labels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float64]]:
    """Return precision, recall and F1 of each class; 0 where a class never occurs or is never predicted."""
    matrix = confusion(probs, labels)
    hits = matrix.diagonal()
    return {
        "precision": hits / np.maximum(matrix.sum(0), 1),
        "recall": hits / np.maximum(matrix.sum(1), 1),
        "f1": 2 * hits / np.maximum(matrix.sum(0) + matrix.sum(1), 1),
    }


def confusion(probs: Probs, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return (classes, classes) counts: row the true class, column the predicted one."""
    classes = probs.shape[1]
    pairs = labels.astype(np.int64) * classes + probs.argmax(1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def reliability(probs: Probs, labels: npt.NDArray[np.uint8], *, bins: int = CALIBRATION_BINS) -> Reliability:
    """Group predictions by confidence into bins, lower edge excluded, upper edge included."""
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


def table(probs: Probs, labels: npt.NDArray[np.uint8], classes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield one row an image: its index in the test set, true and predicted class by name, and all probabilities."""
    predicted = probs.argmax(1)
    for index, (row, label) in enumerate(zip(probs.tolist(), labels, strict=True)):
        chances = {name: f"{value:.6g}" for name, value in zip(classes, row, strict=True)}
        yield {"index": index, "label": classes[label], "predicted": classes[predicted[index]], **chances}
