"""How good predictions are: metrics with intervals, calibration, the confusion of classes.

In numpy, as importing scikit-learn, which the tests compare these with, would lengthen the evaluate stage by a second.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from pipeline.evaluation.inference import Probs


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


def metrics(probs: Probs, labels: npt.NDArray[np.uint8], classes: tuple[str, ...], *, bins: int) -> dict[str, Any]:
    """Return the metrics of one set of predictions under the names they have everywhere, e.g. "test/accuracy".

    Shares are fractions of 1. The interval of the accuracy is Wilson's, at 95 % confidence. The loss is the mean
    cross-entropy in nats; the calibration error is the expected one (Naeini et al. 2015) over `bins` bins.
    """
    count = len(labels)
    matrix = confusion(probs, labels)
    hits = matrix.diagonal()
    correct = int(hits.sum())
    by_class = {  # 0 where a class never occurs or is never predicted
        "precision": hits / np.maximum(matrix.sum(0), 1),
        "recall": hits / np.maximum(matrix.sum(1), 1),
        "f1": 2 * hits / np.maximum(matrix.sum(0) + matrix.sum(1), 1),
    }
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
        "test/f1_macro": float(by_class["f1"].mean()),
        "test/calibration_error": float(ece),
    }
    for name, scores in by_class.items():
        result |= {f"test/{name}/{label}": score for label, score in zip(classes, scores.tolist(), strict=True)}
    return result


def confusion(probs: Probs, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return (classes, classes) counts: row the true class, column the predicted one."""
    classes = probs.shape[1]
    pairs = labels.astype(np.int64) * classes + probs.argmax(1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


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
