"""Separability by depth: a network in which one stage, and no earlier one, tells the classes apart."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.errors import InspectionError
from pipeline.inspection import separability
from tests.models.test_networks import network


def stripes(count: int, seed: int) -> Split:
    """Images of vertical (class 0) or horizontal (class 1) stripes of one brightness, in any phase."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 2
    waves = (np.arange(32) // 2 + rng.integers(0, 2, count)[:, None]) % 2  # stripes of 2 px
    images = np.where(labels[:, None, None] == 0, waves[:, None, :], waves[:, :, None]) * 200
    noise = rng.integers(0, 20, (count, 32, 32))
    return Split((images + noise)[..., None].repeat(3, 3).astype(np.uint8), labels)


@pytest.fixture
def seeing() -> nn.Module:
    """A CNN whose first block hands on brightness; channels of its second answer to edges, vertical or horizontal."""
    model = network("cnn", widths=(2, 2), pooling="none", norm="none", convs_per_block=1)
    first, second = (block[0] for block in model.blocks)
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    with torch.no_grad():
        for layer in (first, second):
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[0, :, 1, 1] = 1.0
        first.bias[0] = 10.0  # so that no pixel is cut off
        second.weight[0, 0], second.weight[1, 0] = sobel, sobel.T
    return model


def test_the_stage_that_sees_edges_tells_stripes_apart_and_the_one_before_does_not(seeing, cpu):
    """Whatever the batches; a channel that is dead does no harm."""
    found = separability.measure(seeing, stripes(200, 0), stripes(100, 1), batch_size=64, place=cpu)
    assert [(one.name, one.channels) for one in found] == [("blocks.0", 2), ("blocks.1", 2)]
    assert found[0].accuracy < 0.7  # guessing gives 0.5
    assert found[1].accuracy == 1.0
    assert found == separability.measure(seeing, stripes(200, 0), stripes(100, 1), batch_size=200, place=cpu)


def test_features_are_means_over_the_feature_map(seeing, cpu):
    """The first stage hands on each pixel's brightness, so its feature is the image's."""
    split = stripes(6, 0)
    features = separability.pooled(seeing, split, batch_size=4, place=cpu)
    assert {name: values.shape for name, values in features.items()} == {"blocks.0": (6, 2), "blocks.1": (6, 2)}
    with torch.inference_mode():
        inputs = seeing.normalize(torch.from_numpy(split.images).permute(0, 3, 1, 2))
    assert np.allclose(features["blocks.0"][:, 0], 10 + inputs.sum(1).mean((1, 2)).numpy(), atol=1e-4)
    assert not features["blocks.0"][:, 1].any()


def test_a_fully_connected_network_has_no_stages(cpu):
    """The error says what is expected."""
    with pytest.raises(InspectionError, match="this network has no feature maps"):
        separability.measure(network("mlp"), stripes(20, 0), stripes(20, 1), batch_size=10, place=cpu)
