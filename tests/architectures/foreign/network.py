"""A network that was written for another project: PyTorch's functions, and a scaling of its own."""

import torch.nn.functional as F
from pipeline.models.foreign.params import Params
from torch import Tensor, nn


class Network(nn.Module):
    """Two convolutions with pooling, two linear layers, after PyTorch's tutorial for CIFAR-10."""

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        del mean, std
        self.conv1 = nn.Conv2d(3, params.channels, 5)
        self.conv2 = nn.Conv2d(params.channels, 2 * params.channels, 5)
        self.fc1 = nn.Linear(2 * params.channels * 5 * 5, 20)
        self.fc2 = nn.Linear(20, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(x)
        return logits
