"""Predictions: no image is lost, and views are averaged as said."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config.schema import EvaluateParams
from pipeline.data.dataset import Split
from pipeline.evaluation import inference


class Lopsided(nn.Module):
    """Scores that depend on where things are, so that an image and its mirror image differ."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 32 * 32, 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(self.linear(images.float().flatten(1) / 64))


@pytest.fixture
def test_split(data) -> Split:
    return Split(data["test"].images[:53], data["test"].labels[:53])


def direct(model, images: np.ndarray) -> np.ndarray:
    """What a network says about (N, H, W, 3) images, without any of the library."""
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).softmax(1).numpy()


@pytest.mark.parametrize("batch_size", [1, 7, 10, 53, 1000])
def test_no_image_is_dropped_and_the_order_is_kept(test_split, cpu, batch_size):
    """53 is prime: every batch size between leaves a smaller last batch."""
    model = Lopsided().train()
    found = inference.predict(model, test_split, batch_size=batch_size, place=cpu)
    assert found.shape == (53, 10)
    assert found.dtype == np.float32
    assert np.allclose(found, direct(model, test_split.images), atol=1e-6)
    assert np.allclose(found.sum(1), 1, atol=1e-6)


def options(tta: str) -> EvaluateParams:
    return EvaluateParams(batch_size=10, tta=tta, robustness=0, shift=0, shift_step=1, seed=0)


def test_flip_is_the_mean_over_both_views(test_split, cpu):
    """Of probabilities, not of logits."""
    model = Lopsided()
    views = [direct(model, images) for images in (test_split.images, test_split.images[:, :, ::-1])]
    plain = inference.predict(model, test_split, batch_size=10, place=cpu)
    found = inference.predict_views(model, test_split, plain, options("flip"), cpu)
    assert np.abs(views[0] - views[1]).max() > 0.1
    assert np.allclose(found, (views[0] + views[1]) / 2, atol=1e-6)


def test_six_views_are_the_weighted_mean_over_both_sides_and_three_places(test_split, cpu):
    """Moved by a pixel along the diagonal, edges reflected; what is not moved counts twice as much."""
    model = Lopsided()
    images = test_split.images
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = [padded[:, 2:, 2:], padded[:, :-2, :-2]]
    expected = sum(0.25 * direct(model, view) for view in (images, images[:, :, ::-1]))
    expected = expected + sum(
        0.125 * direct(model, np.ascontiguousarray(view[:, :, ::side])) for view in moved for side in (1, -1)
    )
    plain = inference.predict(model, test_split, batch_size=10, place=cpu)
    found = inference.predict_views(model, test_split, plain, options("six"), cpu)
    assert np.allclose(found, expected, atol=1e-6)


def test_a_network_that_has_predicted_can_still_be_trained(test_split, cpu):
    """Its weights were laid out anew for predicting, which leaves them able to carry gradients."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
    probs = inference.predict(network, test_split, batch_size=53, place=cpu, change=lambda images: images.float())
    assert probs.shape == (53, 10)
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert network[0].weight.grad.abs().sum() > 0
