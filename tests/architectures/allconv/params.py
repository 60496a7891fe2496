"""Parameters of the all-convolutional network."""

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Architecture


class Params(Architecture):
    """3x3 convolutions that each halve the side, and a 1x1 convolution with a channel for each class."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=512)], ...], Field(min_length=1, max_length=4)]
    """Channels of each 3x3 convolution."""

    @property
    def smallest_side(self) -> int:
        return 1
