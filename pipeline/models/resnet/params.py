"""Parameters of the residual network."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from pipeline.config.section import Activation, Architecture, Share


def _six_n_plus_two(value: int) -> int:
    if (value - 2) % 6:
        raise PydanticCustomError("depth", "Input should be 6n + 2: 8, 14, 20, 32, 44, 56, 110")
    return value


class Params(Architecture):
    """Three stages of residual blocks."""

    depth: Annotated[int, Field(ge=8, le=1202), AfterValidator(_six_n_plus_two)]
    """Layers with weights on the path from image to scores: 6n + 2 for n blocks in each of three stages."""
    width: Annotated[int, Field(ge=1, le=512)]
    """Channels of the first stage."""
    activation: Activation
    dropout: Share

    @property
    def smallest_side(self) -> int:
        return 1
