"""Features, neighbours and maps, held against networks and clouds of points of which they are known."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.errors import InspectionError
from pipeline.inspection import embedding
from tests.models.test_networks import SECTIONS, network


class Means(nn.Module):
    """Its features are the mean of each channel."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(3, 10)

    def forward(self, images):
        return self.scores(images.float().mean((2, 3)))


def clouds(count: int, *, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Four clouds of `count` points each in 20 dimensions, around points `apart` from the origin."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4, dtype=np.uint8), count)
    points = rng.normal(size=(4 * count, 20)).astype(np.float32)
    points[np.arange(4 * count), labels] += apart
    return points, labels


@pytest.mark.parametrize("arch", SECTIONS)
def test_features_are_what_the_last_linear_layer_turns_into_scores(arch, data, cpu):
    """In the split's order, whatever the batches; and no hook is left behind."""
    model = network(arch).eval()
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    split = Split(data["test"].images[:23], data["test"].labels[:23])
    found = embedding.features(model, split, batch_size=10, place=cpu)
    *_, last = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    with torch.inference_mode():
        scores = model(torch.from_numpy(split.images).permute(0, 3, 1, 2))
        assert torch.allclose(last(torch.from_numpy(found)), scores, atol=1e-4)
    assert found.dtype == np.float32
    assert [len(module._forward_pre_hooks) for module in model.modules()] == hooks


def test_a_network_without_a_linear_layer_has_no_features(data, cpu):
    """A message instead of an empty array."""
    with pytest.raises(InspectionError, match=r"^features: expected a network with a `head` or a torch.nn.Linear"):
        embedding.features(nn.Flatten(), data["test"], batch_size=100, place=cpu)


def test_a_planted_copy_is_the_most_similar_image(data, cpu):
    """Its cosine is 1, and all images are looked at, once."""
    split = Split(data["train"].images[:50], data["train"].labels[:50])
    looked_at = []
    found = embedding.similarity(
        network("cnn").eval(), split.images[37], split, batch_size=16, place=cpu, advance=looked_at.append
    )
    assert found.shape == (50,)
    assert found.argmax() == 37
    assert found[37] == pytest.approx(1, abs=1e-5)
    assert looked_at == [16, 16, 16, 2]


def test_similarity_is_the_cosine_of_the_features(cpu):
    """Of red and the others: 1 for dark red, 0 for green, half the root of 2 for yellow."""
    colours = np.array([[200, 0, 0], [50, 0, 0], [0, 90, 0], [80, 80, 0]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (4, 32, 32, 3)).copy()
    split = Split(images, np.zeros(4, np.uint8))
    found = embedding.similarity(Means(), images[0], split, batch_size=3, place=cpu, advance=lambda _images: None)
    assert found == pytest.approx([1, 1, 0, 0.5**0.5], abs=1e-5)


def test_classes_far_apart_have_neighbours_of_their_own():
    """And clouds in one place do not: chance is a quarter."""
    assert embedding.neighbour_accuracy(*clouds(50, apart=30)) == 1
    points, labels = clouds(200, apart=0)
    assert 0.18 < embedding.neighbour_accuracy(points, labels) < 0.32


def test_no_image_is_its_own_neighbour():
    """Two pairs of directions, each of one class and the other: the nearest other point is always of the other."""
    points = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], np.float32)
    labels = np.array([0, 1, 0, 1], np.uint8)
    assert embedding.neighbour_accuracy(points, labels, neighbours=1) == 0


def test_the_maps_keep_clouds_apart_and_say_how_much_they_show():
    """Every point is nearer to the middle of its own cloud than to any other's, in t-SNE's map."""
    points, labels = clouds(30, apart=30)
    found = embedding.layout(points, seed=0)
    middles = np.stack([found.tsne[labels == label].mean(0) for label in range(4)])
    distances = np.linalg.norm(found.tsne[:, None] - middles, axis=2)
    assert (distances.argmin(1) == labels).all()
    centred = points - points.mean(0)
    shares = np.linalg.svd(centred, compute_uv=False) ** 2 / (centred**2).sum()
    assert found.variance == pytest.approx(tuple(shares[:2]), rel=1e-3)
    assert found.pca.var(0).sum() == pytest.approx(shares[:2].sum() * centred.var(0).sum(), rel=1e-3)


def test_the_maps_are_a_function_of_points_and_seed():
    """To the bit, also for few points of few dimensions."""
    points = clouds(5, apart=3)[0][:, :3]
    first, again = (embedding.layout(points, seed=3) for _ in range(2))
    assert np.array_equal(first.tsne, again.tsne)
    assert np.array_equal(first.pca, again.pca)
    assert np.isfinite(first.tsne).all()
