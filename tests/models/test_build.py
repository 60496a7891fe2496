"""What `build` adds to a network: strided 1x1 convolutions that neither crash nor compute wrong gradients."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from pipeline.models.common.build import head, subsample_before_pointwise
from tests.paths import ROOT

GRADIENTS = """
import copy, sys
import torch
from torch import nn
from pipeline.models.common.build import subsample_before_pointwise

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


class HeadFirst(nn.Module):
    """Its last layer is defined before the others."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(8, 10)
        self.hidden = nn.Linear(3 * 32 * 32, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores(self.hidden(images.float().flatten(1)))


def test_the_head_is_the_linear_layer_that_runs_last():
    """Whatever the order of definition; a network without a linear layer has none, and one may name its own."""
    network = HeadFirst()
    assert head(network) is network.scores
    network.head = network.hidden
    assert head(network) is network.hidden
    assert head(nn.Conv2d(3, 10, 32)) is None
