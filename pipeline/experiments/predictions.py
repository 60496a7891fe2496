"""The predictions of a network for the test images, as evaluate writes them."""

import csv
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ResultsError


@dataclass(frozen=True)
class Predictions:
    """The predictions of one network for all test images.

    Attributes:
        labels, predicted: (N,) class indices, true and predicted.
        classes: names, by index.
    """

    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @classmethod
    def parse(cls, content: bytes) -> "Predictions":
        """Read the predictions.csv that evaluate writes.

        Raises:
            ResultsError: it is not what evaluate writes.
        """
        try:
            header = content[: content.index(b"\n")].decode()
            classes = pd.Index(next(csv.reader([header]))[3:], dtype=str)
            table = pd.read_csv(io.BytesIO(content), usecols=["label", "predicted"], dtype=str)
            labels, predicted = (classes.get_indexer(pd.Index(table[name])) for name in ("label", "predicted"))
        except (ValueError, csv.Error, pd.errors.InvalidIndexError) as error:
            raise ResultsError(f"the predictions for the test images are damaged: {error}") from None
        if not len(labels) or min(labels.min(), predicted.min()) < 0:
            raise ResultsError("the predictions for the test images are damaged: expected a known class in each line")
        return cls(labels.astype(np.int64), predicted.astype(np.int64), tuple(classes))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,) whether each image was classified correctly."""
        return np.equal(self.labels, self.predicted)

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(C, C) counts: row the true class, column the predicted one."""
        size = len(self.classes)
        return np.bincount(self.labels * size + self.predicted, minlength=size * size).reshape(size, size)

    def same_images(self, other: "Predictions") -> bool:
        """Return whether another network has predictions for the same classes and labels in the same order."""
        return self.classes == other.classes and np.array_equal(self.labels, other.labels)

    def alone_right(self, other: "Predictions") -> npt.NDArray[np.bool_]:
        """Return (N,) whether this network alone classified each image correctly."""
        return self.correct & ~other.correct
