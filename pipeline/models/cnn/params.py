"""Parameters of the convolutional network."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from pipeline.config.section import IMAGE_SIDE, Activation, Architecture, Hidden, Init, InitScale, Norm, Share

PerBlock = Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(min_length=1, max_length=8)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise PydanticCustomError("odd", "Input should be odd, so that the filter has a centre")
    return value


class Params(Architecture):
    """Blocks of [convolution, norm, activation], pooling, dropout; then fully connected layers."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=1, max_length=8)]
    """Output channels of each block."""
    convs_per_block: Annotated[int, Field(ge=1, le=8)] | PerBlock
    """Convolutions of each block, or one number for all blocks."""
    kernel_size: Annotated[int, Field(ge=1, le=11), AfterValidator(_odd)]
    activation: Activation
    pooling: Literal["max", "avg", "stride", "none"]
    norm: Norm
    dropout: Share
    hidden: Hidden
    """Units of each fully connected layer between the blocks and the class scores."""
    init: Init
    init_scale: InitScale
    """Factor on the initial weights of all layers but the last, whose scores nothing would normalise."""

    @property
    def smallest_batch(self) -> int:
        to_one_pixel = self.pooling == "stride" and IMAGE_SIDE >> len(self.widths) <= 1
        return 2 if self.norm == "batch" and (self.hidden or to_one_pixel) else 1

    def conflicts(self) -> Iterator[tuple[str, str]]:
        blocks, convs = len(self.widths), self.convs_per_block
        if not isinstance(convs, int) and len(convs) != blocks:
            yield (
                "convs_per_block",
                f"found {len(convs)} numbers, expected one for each of the {blocks} model.cnn.widths, or a single "
                "number for all blocks",
            )
        if self.pooling != "none" and IMAGE_SIDE >> blocks < 1:
            yield (
                "widths",
                f"found {blocks} blocks, expected at most 5 with model.cnn.pooling {self.pooling}, as each block "
                f"halves the {IMAGE_SIDE} px side; use fewer blocks or pooling none",
            )
