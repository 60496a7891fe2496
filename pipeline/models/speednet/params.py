"""Parameters of the speed runs' network."""

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Activation, Architecture


class Params(Architecture):
    """A whitening layer, groups of convolutions that each halve the side, a linear layer."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=1, max_length=4)]
    """Output channels of each group."""
    convs_per_group: Annotated[int, Field(ge=1, le=8)]
    activation: Activation
    whitening: bool
    """Compute the first layer from the training images and leave it so; false: learn it."""
    patch: Annotated[int, Field(ge=1, le=4)]
    """Side of the first layer's filters in pixels."""

    @property
    def smallest_side(self) -> int:
        return (1 << len(self.widths)) + self.patch - 1
