"""The residual network for CIFAR (He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385)."""

from torch import Tensor, nn

from pipeline.models.common.layers import ACTIVATIONS, Normalize, initialize
from pipeline.models.resnet.params import Params


class Network(nn.Module):
    """A convolution, three stages of n residual blocks at 32, 16 and 8 px, global average pooling, a linear layer.

    `depth` = 6n + 2 counts the layers with weights on the main path. Where a stage changes the shape, the shortcut
    is a 1x1 convolution with batch norm (option B of the paper).
    """

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        width, blocks = params.width, (params.depth - 2) // 6
        self.normalize = Normalize(mean, std)
        self.stem = nn.Sequential(_conv(3, width, 3), nn.BatchNorm2d(width), ACTIVATIONS[params.activation]())
        self.stages = nn.Sequential(
            _stage(params, width, width, blocks, stride=1),
            _stage(params, width, 2 * width, blocks, stride=2),
            _stage(params, 2 * width, 4 * width, blocks, stride=2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(params.dropout)
        self.classifier = nn.Linear(4 * width, classes)
        initialize(self, "kaiming")

    @property
    def feature_stages(self) -> list[nn.Module]:
        return [self.stem, *self.stages]

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        x = self.stem(x)
        x = self.stages(x)
        x = self.pool(x).flatten(1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the block's input."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv(inputs, outputs, 3, stride),
            nn.BatchNorm2d(outputs),
            ACTIVATIONS[activation](),
            _conv(outputs, outputs, 3),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return out


def _stage(params: Params, inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride, params.activation)
    rest = (ResidualBlock(outputs, outputs, 1, params.activation) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def _conv(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
