"""The regular network that convolutional ones are compared against: every pixel connected to every unit."""

from torch import Tensor, nn

from pipeline.models.layers import Normalize, fully_connected, initialize
from pipeline.schema import IMAGE_SIDE, MlpParams


class Mlp(nn.Module):
    """Fully connected layers on the flattened image."""

    def __init__(self, params: MlpParams, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.classifier = fully_connected(params, 3 * IMAGE_SIDE * IMAGE_SIDE, classes)
        initialize(self, params.init, params.init_scale)

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits
