"""The all-convolutional network of Springenberg et al. 2015 (https://arxiv.org/abs/1412.6806), in small."""

import itertools

from pipeline.models.allconv.params import Params
from torch import Tensor, nn

from pipeline.models.common.layers import Normalize


class Network(nn.Module):
    """Strided convolutions, then the mean of a 1x1 convolution's map for each class; there is no linear layer."""

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((3, *params.widths)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(params.widths[-1], classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.body(self.normalize(images))
        return maps.mean((2, 3))
