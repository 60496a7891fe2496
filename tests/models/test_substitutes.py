"""Layers that are replaced, for they crash, return wrong gradients or are not deterministic, compute the same."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from pipeline.models.common.substitutes import pool_by_products, subsample_before_pointwise
from tests.paths import ROOT

GRADIENTS = """
import copy, sys
import torch
from torch import nn
from pipeline.models.common.substitutes import subsample_before_pointwise

torch.set_num_threads(int(sys.argv[1]))
worst = 0.0
for channels in (4, 8, 12, 16):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 8, 1, 2), nn.Conv2d(8, 4, 3, padding=1))
    network = nn.Sequential(*layers)
    reference = copy.deepcopy(network).double()
    subsample_before_pointwise(network.to(memory_format=torch.channels_last))
    images = torch.randn(41, 3, 32, 32)
    network(images.to(memory_format=torch.channels_last)).square().mean().backward()
    reference(images.double()).square().mean().backward()
    for mine, other in zip(network.parameters(), reference.parameters(), strict=True):
        worst = max(worst, ((mine.grad - other.grad).norm() / other.grad.norm()).item())
print(worst)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_strided_pointwise_convolutions_are_right(threads, environment):
    """Against float64 in the default memory format; in a process of its own, as the fault corrupts memory."""
    command = [sys.executable, "-c", GRADIENTS, str(threads)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


@pytest.mark.parametrize(("stride", "side"), [(2, 8), (2, 7), (3, 10), ((1, 2), 8)])
def test_subsampling_before_a_pointwise_convolution_computes_the_same(stride, side):
    """Also for sides that the stride does not divide; other convolutions stay as they are."""
    network = nn.Sequential(nn.Conv2d(3, 5, 1, stride), nn.Conv2d(5, 5, 3, 2, padding=1)).double()
    changed = copy.deepcopy(network)
    subsample_before_pointwise(changed)
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    assert torch.allclose(changed(images), network(images))
    assert changed[0].stride == (1, 1)
    assert changed[1].stride == (2, 2)
    assert not changed[1]._forward_pre_hooks


@pytest.mark.parametrize("size", [7, 3, (2, 5), (None, 3)])
@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (8, 8), (7, 10)])
def test_pooling_by_products_computes_the_same(size, sides):
    """More pixels than before, as many, fewer, in both directions; values and gradients."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(size)).double()
    changed = copy.deepcopy(network)
    pool_by_products(changed)
    images = torch.randn(2, 3, *sides, dtype=torch.float64)
    results = [one(images) for one in (network, changed)]
    assert torch.allclose(*results)
    for result in results:
        result.square().sum().backward()
    assert torch.allclose(network[0].weight.grad, changed[0].weight.grad)


def test_pooling_to_one_pixel_stays():
    """It is a mean, and exported as such."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1)))
    pool_by_products(network)
    assert [type(layer) for layer in network] == [nn.AdaptiveAvgPool2d] * 2
