"""Labels that a network's predictions speak against: confident learning."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.dataset import Labels
from pipeline.inference import Probs


@dataclass(frozen=True)
class Suspicions:
    """Images whose label looks wrong to a network, the worst first; (S,) arrays.

    Attributes:
        indices: of the images.
        suggested: the class that each seems to be of.
        scores: the probability (0..1) that the network gives to the label it has: the lower, the more suspect.
    """

    indices: npt.NDArray[np.intp]
    suggested: npt.NDArray[np.intp]
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)


def suspicions(probs: Probs, labels: Labels) -> Suspicions:
    """Find likely label errors by confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068).

    The threshold of a class is the mean probability of that class over the images that carry its label. An image
    seems to be of the most probable class among those whose threshold it reaches; if that is not its label, the label
    is suspect. Thresholds make up for classes that a network is too sure or too unsure of. As in the authors' library,
    an image whose label is also the most probable class is not suspected, and suspects are ranked by the probability
    of their label.

    Args:
        probs: (N, C), of images the network has not been trained on.
        labels: (N,) uint8 of 0..C - 1.
    """
    classes = probs.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = probs[np.arange(len(labels)), labels]
    # No image can reach the threshold of a class that no image carries.
    thresholds = np.full(classes, np.inf)
    thresholds[counts > 0] = np.bincount(labels, own, minlength=classes)[counts > 0] / counts[counts > 0]
    confident = np.where(probs >= thresholds, probs, -1)
    seems = confident.argmax(1)
    found = np.flatnonzero((confident.max(1) >= 0) & (seems != labels) & (probs.argmax(1) != labels))
    found = found[np.argsort(own[found], kind="stable")]
    return Suspicions(found, seems[found], own[found])
