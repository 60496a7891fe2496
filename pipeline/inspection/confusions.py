"""The pairs of classes that a network confuses most often, with the images that it confuses."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.dataset import Labels
from pipeline.evaluation import metrics
from pipeline.evaluation.inference import Probs


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused with each other.

    Attributes:
        first, second: the classes; more images of the first are taken for the second than the other way round.
        counts: images of the first taken for the second, and of the second taken for the first.
        indices: of all these images, by descending confidence.
    """

    first: int
    second: int
    counts: tuple[int, int]
    indices: npt.NDArray[np.intp]


def most_confused(probs: Probs, labels: Labels, count: int) -> list[Pair]:
    """Return up to `count` pairs of classes by the number of images classified as the other class, most first.

    Args:
        probs: (N, C); labels: (N,) uint8 of 0..C - 1.
    """
    matrix = metrics.confusion(probs, labels)
    predicted, confidence = probs.argmax(1), probs.max(1)
    both = np.triu(matrix + matrix.T, 1)
    pairs = []
    for place in np.argsort(-both, axis=None, kind="stable")[:count]:
        first, second = (int(label) for label in np.unravel_index(place, both.shape))
        if both[first, second] == 0:
            break
        if matrix[second, first] > matrix[first, second]:
            first, second = second, first
        mixed_up = ((labels == first) & (predicted == second)) | ((labels == second) & (predicted == first))
        indices = np.flatnonzero(mixed_up)
        indices = indices[np.argsort(-confidence[indices], kind="stable")]
        counts = (int(matrix[first, second]), int(matrix[second, first]))
        pairs.append(Pair(first, second, counts, indices))
    return pairs
