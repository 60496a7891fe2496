"""The regular network that convolutional ones are compared against: every pixel connected to every unit."""

from torch import Tensor, nn

from pipeline.config.section import IMAGE_SIDE
from pipeline.models.common.layers import Normalize, fully_connected, initialize
from pipeline.models.mlp.params import Params


class Network(nn.Module):
    """Fully connected layers on the flattened image."""

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.classifier = fully_connected(
            3 * IMAGE_SIDE * IMAGE_SIDE,
            params.hidden,
            classes,
            activation=params.activation,
            norm=params.norm,
            dropout=params.dropout,
        )
        initialize(self, params.init, params.init_scale)

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits
