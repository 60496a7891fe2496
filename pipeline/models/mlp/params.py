"""Parameters of the fully connected network."""

from pipeline.config.section import Activation, Architecture, Hidden, Init, InitScale, Norm, Share


class Params(Architecture):
    """Fully connected layers only: the network that convolutional ones are compared with."""

    hidden: Hidden
    """Units of each layer between the pixels and the class scores."""
    activation: Activation
    norm: Norm
    dropout: Share
    init: Init
    init_scale: InitScale
    """Factor on the initial weights of all layers but the last, whose scores nothing would normalise."""

    @property
    def smallest_batch(self) -> int:
        return 2 if self.norm == "batch" and self.hidden else 1
