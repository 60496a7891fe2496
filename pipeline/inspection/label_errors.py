"""Likely label errors, found by confident learning."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from pipeline.data.dataset import Labels
from pipeline.evaluation.inference import Probs


@dataclass(frozen=True)
class Suspicions:
    """Images whose label is likely wrong, the most suspect first; (S,) arrays.

    Attributes:
        indices: of the images.
        suggested: the predicted class of each.
        scores: the predicted probability (0..1) of the given label: the lower, the more suspect.
    """

    indices: npt.NDArray[np.intp]
    suggested: npt.NDArray[np.intp]
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)


def suspicions(probs: Probs, labels: Labels) -> Suspicions:
    """Find likely label errors by confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068).

    The threshold of a class is the mean probability of that class over the images with its label, which corrects for
    over- and underconfidence by class. A label is suspect if the image reaches the threshold of another class, and
    another class is predicted. The library cleanlab finds and scores them
    (`filter_by="confident_learning"`, `method="self_confidence"`).

    Args:
        probs: (N, C), of images that the network was not trained on.
        labels: (N,) uint8 of 0..C - 1.
    """
    if len(np.unique(labels)) < 2:  # no other class has a threshold; cleanlab refuses such labels
        found = np.array([], np.intp)
    else:
        found = np.flatnonzero(find_label_issues(labels, probs, filter_by="confident_learning", n_jobs=1))
    scores = get_label_quality_scores(labels, probs, method="self_confidence")[found]
    order = np.argsort(scores, kind="stable")  # cleanlab leaves the order of equals open
    return Suspicions(found[order], probs[found[order]].argmax(1), scores[order])
