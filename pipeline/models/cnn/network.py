"""The classic convolutional network: blocks of convolutions with pooling, then fully connected layers."""

from torch import Tensor, nn

from pipeline.config.section import IMAGE_SIDE
from pipeline.models.cnn.params import Params
from pipeline.models.common.layers import ACTIVATIONS, Normalize, fully_connected, initialize

POOLINGS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


class Network(nn.Module):
    """Blocks of [convolution, norm, activation] x convs_per_block, pooling, dropout; then the classifier.

    After LeCun et al. 1998 (convolution, pooling, fully connected layers) and Simonyan & Zisserman 2015
    (https://arxiv.org/abs/1409.1556: stacks of small filters), with batch normalisation (Ioffe & Szegedy 2015).
    """

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        widths = (3, *params.widths)
        convs = params.convs_per_block
        if isinstance(convs, int):
            convs = (convs,) * len(params.widths)
        shapes = zip(widths[:-1], params.widths, convs, strict=True)
        self.blocks = nn.Sequential(*(block(params, inputs, outputs, count) for inputs, outputs, count in shapes))
        side = IMAGE_SIDE if params.pooling == "none" else IMAGE_SIDE >> len(params.widths)
        self.classifier = fully_connected(
            widths[-1] * side * side,
            params.hidden,
            classes,
            activation=params.activation,
            norm=params.norm,
            dropout=params.dropout,
        )
        initialize(self, params.init, params.init_scale)

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        x = self.blocks(x)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def block(params: Params, inputs: int, outputs: int, convs: int) -> nn.Sequential:
    """Return a block of `convs` convolutions for (N, inputs, H, W); it halves H and W unless pooling is "none"."""
    layers: list[nn.Module] = []
    size = params.kernel_size
    for number in range(1, convs + 1):
        stride = 2 if params.pooling == "stride" and number == convs else 1
        # A bias before batch norm would be subtracted again at once.
        layers.append(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=params.norm == "none"))
        if params.norm == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(ACTIVATIONS[params.activation]())
        inputs = outputs
    if params.pooling in POOLINGS:
        layers.append(POOLINGS[params.pooling](2))
    if params.dropout:
        layers.append(nn.Dropout(params.dropout))
    return nn.Sequential(*layers)
