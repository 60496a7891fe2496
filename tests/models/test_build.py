"""What other code asks a network: which layer gives the class scores."""

import torch
from torch import nn

from pipeline.models.common.build import head


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
