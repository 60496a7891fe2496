"""The embedding of images: features before the last layer, nearest neighbours, and two-dimensional maps."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from pipeline.data.dataset import Images, Labels, Split
from pipeline.data.loader import batches
from pipeline.errors import InspectionError
from pipeline.models.common.build import head

Features = npt.NDArray[np.float32]
"""(N, D): inputs of the layer that gives the class scores, `head`."""

COMPONENTS = 50
"""Principal components that t-SNE runs on: less noise and less work, as its authors advise."""


@dataclass(frozen=True)
class Layout:
    """Two maps of N images.

    Attributes:
        pca: (N, 2) float64, the first two principal components.
        variance: shares (0..1) of the features' variance along them.
        tsne: (N, 2) float32.
    """

    pca: npt.NDArray[np.float64]
    variance: tuple[float, float]
    tsne: npt.NDArray[np.float32]


@torch.inference_mode()
def feature_batches(model: nn.Module, split: Split, *, batch_size: int, place: torch.device) -> Iterator[Tensor]:
    """Yield a split's features, (B, D) float32 on `place`, in its order; the network is there and in evaluation mode.

    Raises:
        InspectionError: the network has no `head`, see `pipeline.models.common.build`.
    """
    last = head(model)
    given: list[Tensor] = []

    def keep(_head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given[:] = inputs  # of one forward pass the last to come stays

    with last.register_forward_pre_hook(keep) if last else nullcontext():
        for images, _ in batches(split, batch_size=batch_size, device=place):
            model(images)
            if not given:
                raise InspectionError("features: expected a network with a `head` or a torch.nn.Linear, found neither")
            yield given.pop().flatten(1)


def features(model: nn.Module, split: Split, *, batch_size: int, place: torch.device) -> Features:
    """Return the features of all images of a split, in its order, see `feature_batches`."""
    found = [part.cpu() for part in feature_batches(model, split, batch_size=batch_size, place=place)]
    array: Features = torch.cat(found).numpy()
    return array


def similarity(
    model: nn.Module,
    image: Images,
    split: Split,
    *,
    batch_size: int,
    place: torch.device,
    advance: Callable[[int], None],
) -> Features:
    """Return the cosine (-1..1) between an image's features and those of each image of a split: (N,) float32.

    Only one batch of features is held at a time.

    Args:
        image: (H, W, 3) uint8.
        advance: called with the number of images done since the last call.
    """
    alone = Split(image[None], np.zeros(1, np.uint8))
    (wanted,) = feature_batches(model, alone, batch_size=1, place=place)
    cosines = []
    for part in feature_batches(model, split, batch_size=batch_size, place=place):
        cosines.append(nn.functional.cosine_similarity(part, wanted).cpu())
        advance(len(part))
    array: Features = torch.cat(cosines).numpy()
    return array


def layout(vectors: npt.NDArray[np.float32], *, seed: int) -> Layout:
    """Map features to two dimensions, by principal components (PCA) and by t-SNE.

    t-SNE (van der Maaten & Hinton 2008) runs on the first 50 principal components and starts from them. It keeps
    neighbours together, but neither distances between groups nor their sizes.

    Args:
        vectors: (N, D), N and D at least 3.
        seed: the same seed, vectors and machine give the same maps.
    """
    count = min(COMPONENTS, *vectors.shape)
    model = PCA(count, random_state=seed)
    components = model.fit_transform(vectors)
    near = min(30.0, (len(vectors) - 1) / 3)
    # A second thread does not speed up so small a problem, and on a busy machine the threads wait for each other in
    # each of a thousand steps.
    with threadpool_limits(1):
        tsne = TSNE(2, perplexity=near, init="pca", random_state=seed).fit_transform(components)
    first, second = model.explained_variance_ratio_[:2].tolist()
    return Layout(components[:, :2].astype(np.float64), (first, second), tsne)


def neighbour_accuracy(vectors: npt.NDArray[np.float32], labels: Labels, *, neighbours: int = 10) -> float:
    """Return the share of images whose class is the most common one among their nearest neighbours by cosine.

    A measure of how well the classes are separated: 1 is perfect, chance is 0.1 for ten classes of equal size. No
    image is its own neighbour; of equally common classes the one with the lowest label counts.

    Args:
        vectors: (N, D), N > neighbours; labels: (N,) uint8.
    """
    search = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(vectors)
    found = labels[search.kneighbors(return_distance=False)]
    votes = (found[:, :, None] == np.arange(labels.max() + 1)).sum(1)
    return float((votes.argmax(1) == labels).mean())
